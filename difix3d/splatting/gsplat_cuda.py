"""`rasterize` on CUDA by gsplat (Ye et al. 2024, Apache-2.0): same call and same meaning as our CPU kernels.

gsplat compiles its kernels on first use, which takes minutes and needs nvcc; where that cannot work, `require_gsplat`
says so before anything is started.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import torch
from torch import Tensor

from difix3d.errors import MissingBackendError
from difix3d.splatting.base import BLUR_PX2, LARGEST, NEAR_PLANE, ScreenSpace
from difix3d.types import Camera

_INSTEAD = "or choose --renderer cpu"


def cuda_is_visible() -> bool:
    """Whether trying gsplat makes sense at all."""
    return torch.cuda.is_available()


def require_gsplat() -> None:
    """Make sure that gsplat can render here. MissingBackendError says what is missing and what to do."""
    if reason := why_not_gsplat():
        raise MissingBackendError(reason)


@functools.cache
def why_not_gsplat() -> str:
    """What is missing for gsplat to render here and what to do, in a sentence; empty where it renders.

    Looked into once: a build takes minutes, and one that failed fails again.
    """
    if not cuda_is_visible():
        return f"gsplat needs a CUDA device and torch sees none: use a machine with one, {_INSTEAD}."
    if importlib.util.find_spec("gsplat") is None:
        return f"gsplat is not installed: pip install -e '.[cuda]', {_INSTEAD}."
    try:
        from gsplat.cuda._backend import _C  # compiles on first use
    except Exception as error:  # whatever compilers, linkers and loaders raise
        return (
            f"gsplat could not build or load its CUDA kernels ({_last_line(error)}): install a C++ compiler "
            f"and the CUDA toolkit (nvcc) of torch's CUDA version, {_INSTEAD}."
        )
    if _C is None:
        return (
            "gsplat found no CUDA toolkit (nvcc) to build its kernels with: install that of torch's CUDA version, "
            f"{_INSTEAD}."
        )
    try:
        _draw_one()
    except Exception as error:  # built for another GPU or driver
        return (
            f"gsplat's CUDA kernels do not run on this GPU ({_last_line(error)}): install gsplat again, so "
            f"that it builds them for it, {_INSTEAD}."
        )
    return ""


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__


def _draw_one() -> None:
    """One splat on 8x8 pixels, and wait for it."""
    camera = Camera(np.array([[8.0, 0, 4], [0, 8.0, 4], [0, 0, 1]]), 8, 8, np.eye(4))
    means, quats, log_scales, opacity_logits, sh = (
        torch.ones(shape, device="cuda") for shape in ((1, 3), (1, 4), (1, 3), (1,), (1, 1, 3))
    )
    rasterize_gsplat(means, quats, log_scales, opacity_logits, sh, camera)
    torch.cuda.synchronize()


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

    screen.radii is filled at once, screen.abs_gradients by the backward pass. Ask `require_gsplat` before.
    """
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
        absgrad=screen is not None,
        backgrounds=None if background is None else background[None],
        render_mode="RGB+ED",
    )
    if screen is not None:
        screen.radii = info["radii"][0].amax(-1)
        centres = info["means2d"]
        if centres.requires_grad:

            def keep(_: Tensor) -> None:
                screen.abs_gradients = centres.absgrad[0]
                handle.remove()  # the hook holds the tensor that holds the hook

            handle = centres.register_hook(keep)
    return rendered[0, ..., :3], alpha[0, ..., 0], rendered[0, ..., 3]
