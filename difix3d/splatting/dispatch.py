"""`rasterize` and `l1_ssim`: one call and one meaning on CPU (our kernels) and CUDA (gsplat, torch)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from difix3d.errors import ConfigError, MissingBackendError, ShapeError
from difix3d.splatting.base import ScreenSpace
from difix3d.types import Camera, Splats

RENDERERS = ("auto", "gsplat", "cpu")


def rasterize(
    means: torch.Tensor,
    quats: torch.Tensor,
    log_scales: torch.Tensor,
    opacity_logits: torch.Tensor,
    sh: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    camera: Camera,
    background: torch.Tensor | None = None,
    sh_degree: int | None = None,
    *,
    screen: ScreenSpace | None = None,
    renderer: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw 3D Gaussians (Kerbl et al. 2023); differentiable in the five parameters and in background.

    means: [N, 3] world; quats: [N, 4] wxyz, any length > 0; log_scales: [N, 3]; opacity_logits: [N];
    sh: [N, K, 3], K in 1, 4, 9, 16, or its parts [N, 1, 3] and [N, K - 1, 3], which spares training a copy of them;
    background: [3], None is black; sh_degree: how many degrees of sh are used, None is all. float32, all on one device.
    renderer: auto (cpu for CPU tensors, gsplat for CUDA), gsplat or cpu.

    Gives rgb [H, W, 3], alpha [H, W] and depth [H, W]: the mean z of what is seen, weighted as the colours are, in
    world units; 0 where alpha is 0. Splats with a NaN or infinite parameter, or nearer than 0.01, are not drawn.
    `screen` is filled for densification. ShapeError names a wrong argument; ConfigError a camera that none can be;
    MissingBackendError a missing device.

    Memory on the CPU, beside arguments and pictures: 170 bytes a splat, 8 a splat and tile it touches (at most 64 MiB),
    at most 128 MiB of counts; 48 more a splat and tile (at most 384 MiB) where gradients are asked for.
    """
    count = _check_shapes(means, quats, log_scales, opacity_logits, sh, background)
    coefficients = sh.shape[1] if isinstance(sh, torch.Tensor) else 1 + sh[1].shape[1]
    degrees = round(coefficients**0.5) - 1
    sh_degree = degrees if sh_degree is None else sh_degree
    if not 0 <= sh_degree <= degrees:
        raise ConfigError(f"sh_degree: expected 0 to {degrees} for {coefficients} coefficients, got {sh_degree}")
    _check_camera(camera)
    on_gpu = choose_renderer(renderer, means.device) == "gsplat"
    if on_gpu and not isinstance(sh, torch.Tensor):
        sh = torch.cat(sh, dim=1)
    if background is None:
        background = torch.zeros(3, device=means.device)
    arguments: dict[str, Any] = {
        "means": means,
        "quats": quats,
        "log_scales": log_scales,
        "opacity_logits": opacity_logits,
        "sh": sh,
        "background": background,
    }
    settings: dict[str, Any] = {"camera": camera, "sh_degree": sh_degree, "screen": screen}
    if on_gpu and count:
        from difix3d.splatting.gsplat_cuda import rasterize_gsplat, require_gsplat

        require_gsplat()
        return rasterize_gsplat(**arguments, **settings)
    from difix3d.splatting.cpu.rasterizer import rasterize_cpu

    if on_gpu:  # nothing to draw: the picture is the background, on the device it was asked on
        arguments = {name: tensor.cpu() for name, tensor in arguments.items()}
    rgb, alpha, depth = rasterize_cpu(**arguments, **settings)
    if on_gpu and screen is not None:
        screen.radii = means.new_zeros(0, dtype=torch.int32)
        screen.abs_gradients = means.new_zeros((0, 2))
    return rgb.to(means.device), alpha.to(means.device), depth.to(means.device)


def choose_renderer(renderer: str, device: torch.device | str) -> str:
    """ "gsplat" or "cpu" for tensors on `device`; the two must agree."""
    if renderer not in RENDERERS:
        raise ConfigError(f"renderer: expected one of {', '.join(RENDERERS)}, got {renderer!r}")
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise MissingBackendError(f"no renderer draws on {kind}: move the tensors to the CPU or to a CUDA device")
    if renderer == "gsplat" and kind == "cpu":
        raise MissingBackendError("gsplat needs a CUDA device, and the splats are on the CPU: choose --renderer cpu")
    if renderer == "cpu" and kind == "cuda":
        raise MissingBackendError(
            "--renderer cpu draws CPU tensors, and the splats are on CUDA: choose --renderer auto"
        )
    return "gsplat" if kind == "cuda" else "cpu"


def render_view(
    splats: Splats,
    camera: Camera,
    *,
    background: Any = None,
    renderer: str = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """rgb [H, W, 3] in [0, 1], alpha [H, W] and depth [H, W] of splats, as `rasterize`, without gradients.

    background: three numbers in [0, 1]; None is black. renderer: auto takes CUDA with gsplat where both are there.
    """
    device = "cpu" if renderer == "cpu" else default_device(renderer)
    names = ("means", "quats", "log_scales", "opacity_logits", "sh")
    arguments: dict[str, Any] = {name: shared(getattr(splats, name), device) for name in names}
    shade = None if background is None else torch.as_tensor(background, dtype=torch.float32, device=device)
    with torch.no_grad():
        rgb, alpha, depth = rasterize(**arguments, camera=camera, background=shade, renderer="auto")
    return rgb.clamp(0, 1).cpu().numpy(), alpha.cpu().numpy(), depth.cpu().numpy()


def shared(array: NDArray, device: torch.device | str) -> torch.Tensor:
    """The array as a tensor that nobody writes to, on the CPU without a copy: two million splats are half a gigabyte.
    torch takes no array that is read-only: of that there is a copy."""
    return torch.as_tensor(array if array.flags.writeable else array.copy(), device=device)


def default_device(renderer: str = "auto") -> str:
    """ "cuda" where gsplat can render, else "cpu"; MissingBackendError if gsplat is asked for and cannot."""
    from difix3d.splatting.gsplat_cuda import require_gsplat, why_not_gsplat

    if renderer not in RENDERERS:
        raise ConfigError(f"renderer: expected one of {', '.join(RENDERERS)}, got {renderer!r}")
    if renderer == "gsplat":
        require_gsplat()
    return "cpu" if renderer == "cpu" or why_not_gsplat() else "cuda"


def why_cpu(renderer: str) -> str:
    """A sentence for the person whose CUDA device `renderer` would have used, had gsplat worked; else empty."""
    from difix3d.splatting.gsplat_cuda import cuda_is_visible, why_not_gsplat

    return why_not_gsplat() if renderer == "auto" and cuda_is_visible() else ""


def l1_ssim(prediction: torch.Tensor, target: torch.Tensor, ssim_weight: float = 0.2) -> torch.Tensor:
    """(1 - ssim_weight) L1 + ssim_weight (1 - SSIM), a scalar differentiable in `prediction` (3DGS Eq. 7).

    prediction, target: [H, W, 3] in [0, 1], any size from 1x1. SSIM has an 11x11 Gaussian window of sigma 1.5 and
    "same" zero padding. Fused on the CPU; on other devices plain torch of the same meaning.
    """
    for name, picture in (("prediction", prediction), ("target", target)):
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ShapeError(f"{name}: expected [H, W, 3], got {list(picture.shape)}")
    if target.shape != prediction.shape:
        raise ShapeError(f"target: expected {list(prediction.shape)} like prediction, got {list(target.shape)}")
    if prediction.device.type == "cpu":
        from difix3d.splatting.cpu.image_loss import l1_ssim_cpu

        return l1_ssim_cpu(prediction, target.cpu(), ssim_weight)
    from difix3d.splatting.torch_loss import l1_ssim_torch

    return l1_ssim_torch(prediction, target, ssim_weight)


def warm_up() -> None:
    """Compile every CPU kernel: 15 s of a core once, then they come from the disk cache in two.

    Where another process is compiling them, wait for that.
    """
    from difix3d.splatting.cpu.cache import compiling

    camera = Camera(np.array([[4.0, 0, 4], [0, 4.0, 4], [0, 0, 1]]), 8, 8, np.eye(4))
    parameters: dict[str, Any] = {
        "means": torch.tensor([[0.0, 0.0, 1.0]]),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "log_scales": torch.zeros(1, 3),
        "opacity_logits": torch.zeros(1),
        "sh": torch.zeros(1, 16, 3),
    }
    for parameter in parameters.values():
        parameter.requires_grad_()
    with compiling():
        rgb, _, _ = rasterize(**parameters, camera=camera, renderer="cpu")
        l1_ssim(rgb, torch.zeros(8, 8, 3)).backward()


def _check_camera(camera: Camera) -> None:
    finite = np.isfinite(camera.K).all() and np.isfinite(camera.cam_from_world).all()
    if not (finite and camera.K[0, 0] > 0 and camera.K[1, 1] > 0):
        raise ConfigError(
            f"camera: expected a finite pose and K with focal lengths above 0, got K {camera.K.tolist()} and "
            f"cam_from_world {camera.cam_from_world.tolist()}"
        )


def _check_shapes(means: Any, quats: Any, log_scales: Any, opacity_logits: Any, sh: Any, background: Any) -> int:
    """N, or ShapeError naming the first argument that does not fit."""
    count = means.shape[0] if means.ndim else 0
    wanted = {
        "means": (means, "[N, 3]", lambda shape: len(shape) == 2 and shape[1] == 3),
        "quats": (quats, f"[{count}, 4]", lambda shape: tuple(shape) == (count, 4)),
        "log_scales": (log_scales, f"[{count}, 3]", lambda shape: tuple(shape) == (count, 3)),
        "opacity_logits": (opacity_logits, f"[{count}]", lambda shape: tuple(shape) == (count,)),
    }

    def coefficients(*counts: int) -> tuple[str, Any]:
        return (
            f"[{count}, {' | '.join(map(str, counts))}, 3]",
            lambda shape: tuple(shape) in {(count, each, 3) for each in counts},
        )

    if isinstance(sh, torch.Tensor):
        wanted["sh"] = (sh, *coefficients(1, 4, 9, 16))
    else:
        wanted["sh[0]"], wanted["sh[1]"] = (sh[0], *coefficients(1)), (sh[1], *coefficients(0, 3, 8, 15))
    if background is not None:
        wanted["background"] = (background, "[3]", lambda shape: tuple(shape) == (3,))
    for name, (tensor, expected, fits) in wanted.items():
        if not fits(tensor.shape):
            raise ShapeError(f"{name}: expected {expected}, got {list(tensor.shape)}")
        if tensor.device != means.device:
            raise ShapeError(f"{name}: expected on {means.device} like means, got {tensor.device}")
    return count
