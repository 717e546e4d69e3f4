"""The rasterizer's meaning in plain float64 torch, a few lines per equation: every pixel times every splat.

Slow on purpose. Tests and benchmarks compare the kernels' pictures and gradients with it.
"""

from __future__ import annotations

import torch

from difix3d.splatting.base import (
    BLUR_PX2,
    FOV_MARGIN,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
    TINY_ALPHA,
)
from difix3d.types import Camera

UNDECIDED = 2e-4
"""Relative error of a float32 alpha. A centre's rounding (4e-6 pixels at 64, 3e-5 at 400) moves that of a thin splat by
5e-5."""
SAME_DEPTH = 5e-7
"""Relative. Two depths nearer to one another than this may come in either order in float32."""


def rotations(quats: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] of quats [N, 4] wxyz of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    return torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def sh_basis(directions: torch.Tensor) -> torch.Tensor:
    """[N, 16] real spherical harmonics of unit directions [N, 3], signs as in 3DGS."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        -1,
    )


def reference_rasterize(
    means: torch.Tensor,
    quats: torch.Tensor,
    log_scales: torch.Tensor,
    opacity_logits: torch.Tensor,
    sh: torch.Tensor,
    camera: Camera,
    background: torch.Tensor | None = None,
    sh_degree: int | None = None,
    centre_shift: torch.Tensor | None = None,
    undecided: torch.Tensor | None = None,
    alpha_error: float = UNDECIDED,
    min_alpha: float = MIN_ALPHA,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As difix3d.splatting.rasterize, in the dtype of its inputs (use float64); memory grows as H W N.

    centre_shift: [N, 2, H, W] pixels added to the projected centres, for each pixel of the picture its own; its
    gradient at 0 is what each pixel asks of them.
    undecided: [H, W] bool, set where float32 may decide otherwise: some splat's alpha, or the transmittance behind it,
    would be on the other side of a threshold if alphas were off by `alpha_error` of themselves, or two splats are at
    the same depth. There the picture or its slope jumps, and a gradient is that of one side or the other.
    """
    dtype = means.dtype
    K = torch.tensor(camera.K, dtype=dtype)
    pose = torch.tensor(camera.cam_from_world, dtype=dtype)
    W, v = pose[:3, :3], pose[:3, 3]
    size = torch.tensor([camera.width, camera.height], dtype=dtype)
    focal, centre = torch.stack([K[0, 0], K[1, 1]]), K[:2, 2]

    t = means @ W.T + v
    kept = t[:, 2] >= NEAR_PLANE
    t = torch.where(kept[:, None], t, torch.ones_like(t))
    z = t[:, 2]
    slope = t[:, :2] / z[:, None]
    margin = FOV_MARGIN * 0.5 * size / focal
    held = torch.minimum(torch.maximum(slope, -centre / focal - margin), (size - centre) / focal + margin)
    J = torch.zeros(len(means), 2, 3, dtype=dtype)
    J[:, 0, 0], J[:, 1, 1] = focal[0] / z, focal[1] / z
    J[:, :, 2] = -focal * held / z[:, None]
    Q = J @ W @ rotations(quats) @ torch.diag_embed(log_scales.exp())
    covariance = Q @ Q.transpose(1, 2) + BLUR_PX2 * torch.eye(2, dtype=dtype)
    conic = torch.linalg.inv(covariance)
    uv = focal * slope + centre

    directions = torch.nn.functional.normalize(means - torch.tensor(camera.position, dtype=dtype), dim=-1)
    used = sh.shape[1] if sh_degree is None else (sh_degree + 1) ** 2
    colors = (0.5 + torch.einsum("nk,nkc->nc", sh_basis(directions)[:, :used], sh[:, :used])).clamp_min(0)

    order = torch.argsort(z, stable=True)
    order = order[kept[order]]
    ys, xs = torch.meshgrid(
        torch.arange(camera.height, dtype=dtype) + 0.5, torch.arange(camera.width, dtype=dtype) + 0.5, indexing="ij"
    )
    rgb = torch.zeros(camera.height, camera.width, 3, dtype=dtype)
    far = torch.zeros(camera.height, camera.width, dtype=dtype)
    transmittance = torch.ones(camera.height, camera.width, dtype=dtype)
    running = torch.ones(camera.height, camera.width, dtype=torch.bool)
    slack = torch.zeros(camera.height, camera.width, dtype=dtype)
    opacities = torch.sigmoid(opacity_logits)
    shifts = None if centre_shift is None else centre_shift.unbind(0)  # indexing would make a gradient of all for each
    depths, z_before, alpha_before = z.tolist(), 0.0, torch.zeros_like(far)
    for n in order.tolist():
        dx, dy = uv[n, 0] - xs, uv[n, 1] - ys
        if shifts is not None:
            dx, dy = dx + shifts[n][0], dy + shifts[n][1]
        sigma = 0.5 * (conic[n, 0, 0] * dx * dx + conic[n, 1, 1] * dy * dy) + conic[n, 0, 1] * dx * dy
        unclipped = opacities[n] * torch.exp(-sigma)
        alpha = unclipped.clamp_max(MAX_ALPHA)
        alpha = torch.where(alpha >= min_alpha, alpha, torch.zeros_like(alpha))
        rest = transmittance * (1 - alpha)
        if undecided is not None:
            near_alpha = torch.minimum((unclipped / min_alpha - 1).abs(), (unclipped / MAX_ALPHA - 1).abs())
            slack = slack + alpha_error * alpha / (1 - alpha)  # relative, of the product of all 1 - alpha so far
            near_end = (rest / MIN_TRANSMITTANCE - 1).abs()
            undecided |= running & ((near_alpha < alpha_error) | (near_end < slack))
            if depths[n] - z_before < SAME_DEPTH * z_before:
                undecided |= running & (alpha > 0) & (alpha_before > 0)
            alpha_before, z_before = alpha, depths[n]
        running = running & (rest > MIN_TRANSMITTANCE)
        w = torch.where(running, alpha * transmittance, torch.zeros_like(alpha))
        rgb = rgb + w[..., None] * colors[n]
        far = far + w * z[n]
        transmittance = torch.where(running, rest, transmittance)
    if background is not None:
        rgb = rgb + transmittance[..., None] * background
    alpha = 1 - transmittance
    return rgb, alpha, far / alpha.clamp_min(TINY_ALPHA)
