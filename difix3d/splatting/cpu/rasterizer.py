"""The CPU rasterizer as one differentiable torch function: project, sort into tiles, blend; and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from difix3d.splatting.base import ScreenSpace
from difix3d.splatting.cpu.blend import blend, blend_backward
from difix3d.splatting.cpu.compile import aligned_empty, run
from difix3d.splatting.cpu.projection import ROW, camera_vector, project
from difix3d.splatting.cpu.projection_backward import SLOT, project_backward
from difix3d.splatting.cpu.tiles import bin_splats
from difix3d.types import Camera


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, sh: Any, rest: Any,
                background: Any, camera: Camera, coefficients: int, screen: ScreenSpace | None) -> Any:  # fmt: skip
        splats = (means, quats, log_scales, opacity_logits, sh, rest)
        arrays = [tensor.detach().numpy() for tensor in splats[:4]]
        count = len(means)
        cam = camera_vector(camera)
        rows = aligned_empty(count, ROW)
        keys = np.empty(count, np.uint32)
        radii = np.empty(count, np.int32)
        run(project, *arrays, *_sh_arrays(sh, rest), coefficients, cam, rows, keys, radii)
        tiling = bin_splats(rows, keys, camera.width, camera.height)

        rgb = np.empty((camera.height, camera.width, 3), np.float32)
        alpha, depth, transmittance = (np.empty((camera.height, camera.width), np.float32) for _ in range(3))
        run(
            blend, tiling.order, tiling.tiles_x, tiling.tiles_y, tiling.split, tiling.bin_start,
            tiling.entry_splat, tiling.rows, background.detach().numpy(), rgb, alpha, depth, transmittance,
        )  # fmt: skip
        if screen is not None:
            screen.radii = torch.from_numpy(radii)
            screen.abs_gradients = None
        outputs = tuple(torch.from_numpy(array) for array in (rgb, alpha, depth))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*splats, outputs[0], outputs[2])
        ctx.rest = (cam, coefficients, radii, rows, tiling, transmittance, screen)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rgb: Any, grad_alpha: Any, grad_depth: Any) -> Any:
        *splats, rgb, depth = ctx.saved_tensors
        cam, coefficients, radii, rows, tiling, transmittance, screen = ctx.rest
        arrays = [tensor.detach().numpy() for tensor in splats[:4]]
        if grad_rgb is None:
            grad_rgb = torch.zeros_like(rgb)
        none = torch.empty(0, 0)
        grads_out = [
            (none if grad is None else grad).float().contiguous().numpy() for grad in (grad_rgb, grad_alpha, grad_depth)
        ]

        slots = np.empty((len(tiling.entry_slot), SLOT), np.float32)
        run(
            blend_backward, tiling.order, tiling.tiles_x, tiling.tiles_y, tiling.split, tiling.bin_start,
            tiling.entry_splat, tiling.entry_slot, tiling.rows, rgb.numpy(), depth.numpy(), transmittance,
            *grads_out, slots,
        )  # fmt: skip
        grads = [torch.empty_like(tensor) for tensor in splats[:5]]
        grads_rest = None if splats[5] is None else torch.empty_like(splats[5])
        on_screen = torch.empty(len(splats[0]), 2)
        grad_dc, _, grad_rest, *_ = _sh_arrays(grads[4], grads_rest)
        run(
            project_backward, *arrays, *_sh_arrays(*splats[4:]), coefficients, cam, radii, rows, tiling.first_slot,
            slots, *(grad.numpy() for grad in grads[:4]), grad_dc, grad_rest, on_screen.numpy(),
        )  # fmt: skip
        if screen is not None:
            screen.abs_gradients = on_screen
        grad_background = None
        if ctx.needs_input_grad[6]:
            grad_background = torch.einsum("hw,hwc->c", torch.from_numpy(transmittance), grad_rgb)
        return *grads, grads_rest, grad_background, None, None, None


def _sh_arrays(sh: torch.Tensor, rest: torch.Tensor | None) -> tuple[NDArray, int, NDArray, int, int]:
    """How kernels find coefficients: dc and rest, flat; coefficient 0 of splat n begins at dc[n * dc_step], the others
    at rest[n * rest_step + rest_at]. One code for sh [N, K, 3] and for sh [N, 1, 3] with rest [N, K - 1, 3]."""
    dc = sh.detach().numpy().reshape(-1)
    step = 3 * sh.shape[1]
    if rest is None:
        return dc, step, dc, step, 3
    return dc, step, rest.detach().numpy().reshape(-1), 3 * rest.shape[1], 0


def rasterize_cpu(
    means: torch.Tensor,
    quats: torch.Tensor,
    log_scales: torch.Tensor,
    opacity_logits: torch.Tensor,
    sh: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    camera: Camera,
    background: torch.Tensor,
    sh_degree: int,
    screen: ScreenSpace | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`rasterize` on the CPU, shapes already checked; float32. background: [3]."""
    dc, rest = (sh, None) if isinstance(sh, torch.Tensor) else sh
    splats = [
        None if tensor is None else tensor.float().contiguous()
        for tensor in (means, quats, log_scales, opacity_logits, dc, rest)
    ]
    return _Rasterize.apply(*splats, background.float().contiguous(), camera, (sh_degree + 1) ** 2, screen)
