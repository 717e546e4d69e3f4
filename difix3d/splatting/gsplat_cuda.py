"""`rasterize` on CUDA by gsplat (Ye et al. 2024, Apache-2.0): same call and same meaning as our CPU kernels.

gsplat compiles its kernels on first use, which takes minutes and needs nvcc; where that cannot work, `require_gsplat`
says so before anything is started.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from difix3d.errors import MissingBackendError
from difix3d.splatting.base import BLUR_PX2, LARGEST, NEAR_PLANE, ScreenSpace
from difix3d.types import Camera

_INSTEAD = "or choose --renderer cpu"


def cuda_is_visible() -> bool:
    """Whether trying gsplat makes sense at all."""
    return torch.cuda.is_available()


@functools.cache
def require_gsplat() -> None:
    """Make sure that gsplat can render here. MissingBackendError says what is missing and what to do."""
    if not cuda_is_visible():
        raise MissingBackendError(
            f"gsplat needs a CUDA device and torch sees none: use a machine with one, {_INSTEAD}."
        )
    if importlib.util.find_spec("gsplat") is None:
        raise MissingBackendError(f"gsplat is not installed: pip install 'difix3d[cuda]', {_INSTEAD}.")
    try:
        from gsplat.cuda._backend import _C  # compiles on first use
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise MissingBackendError(
            f"gsplat could not build its CUDA kernels ({reason[0][:200]}), {_INSTEAD}."
        ) from error
    if _C is None:
        raise MissingBackendError(
            "gsplat found no CUDA toolkit (nvcc) to build its kernels with: install that of torch's CUDA version, "
            f"{_INSTEAD}."
        )


def sound_splats(*splats: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """[N] bool, which splats have only finite numbers and a quaternion that is not 0; and all of them, others zeroed.

    splats: means, quats, log_scales, opacity_logits, sh. gsplat compares so that a NaN passes; the CPU kernels so that
    it does not.
    """
    sizes = torch.stack(
        [tensor.detach().abs().flatten(1).sum(1) for tensor in (*splats[:3], splats[3][:, None], splats[4])]
    )
    drawn = (sizes.sum(0) < LARGEST) & (sizes[1] > 0)
    return drawn, tuple(
        torch.where(drawn.reshape(-1, *[1] * (tensor.ndim - 1)), tensor, torch.zeros_like(tensor)) for tensor in splats
    )


def rasterize_gsplat(
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    sh: Tensor,
    camera: Camera,
    background: Tensor | None = None,
    sh_degree: int | None = None,
    *,
    screen: ScreenSpace | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """rgb [H, W, 3], alpha [H, W], depth [H, W]; arguments as `difix3d.splatting.rasterize` takes them, on CUDA.

    screen.radii is filled at once, screen.gradients by the backward pass. MissingBackendError as `require_gsplat`.
    """
    require_gsplat()
    from gsplat import rasterization

    drawn, (means, quats, log_scales, opacity_logits, sh) = sound_splats(means, quats, log_scales, opacity_logits, sh)
    degree = round(sh.shape[1] ** 0.5) - 1 if sh_degree is None else sh_degree
    pose, K = (torch.from_numpy(matrix).to(means)[None] for matrix in (camera.cam_from_world, camera.K))
    rendered, alpha, info = rasterization(
        means,
        torch.nn.functional.normalize(quats, dim=-1),
        log_scales.exp(),
        torch.where(drawn, torch.sigmoid(opacity_logits), 0.0),  # gsplat culls what is fainter than 1/255
        sh,
        pose,
        K,
        camera.width,
        camera.height,
        near_plane=NEAR_PLANE,
        eps2d=BLUR_PX2,
        sh_degree=degree,
        packed=False,
        backgrounds=None if background is None else background[None],
        render_mode="RGB+ED",
    )
    if screen is not None:
        screen.radii = info["radii"][0].amax(-1)
        if info["means2d"].requires_grad:

            def keep(gradient: Tensor) -> None:
                screen.gradients = gradient[0]

            info["means2d"].register_hook(keep)
    return rendered[0, ..., :3], alpha[0, ..., 0], rendered[0, ..., 3]
