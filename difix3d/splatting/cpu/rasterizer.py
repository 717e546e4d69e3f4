"""The CPU rasterizer as one differentiable torch function: project, sort into tiles, blend; and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
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
    def forward(ctx: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, sh: Any, background: Any,
                camera: Camera, coefficients: int, screen: ScreenSpace | None) -> Any:  # fmt: skip
        splats = (means, quats, log_scales, opacity_logits, sh)
        arrays = [tensor.detach().numpy() for tensor in splats]
        count = len(means)
        cam = camera_vector(camera)
        rows = aligned_empty(count, ROW)
        keys = np.empty(count, np.uint32)
        radii = np.empty(count, np.int32)
        run(project, *arrays, coefficients, cam, rows, keys, radii)
        tiling = bin_splats(rows, keys, camera.width, camera.height)

        rgb = np.empty((camera.height, camera.width, 3), np.float32)
        alpha, depth, transmittance = (np.empty((camera.height, camera.width), np.float32) for _ in range(3))
        run(
            blend, tiling.order, tiling.tiles_x, tiling.tiles_y, tiling.split, tiling.bin_start,
            tiling.entry_splat, tiling.rows, background.detach().numpy(), rgb, alpha, depth, transmittance,
        )  # fmt: skip
        if screen is not None:
            screen.radii = torch.from_numpy(radii)
            screen.gradients = None
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
        arrays = [tensor.detach().numpy() for tensor in splats]
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
        grads = [torch.empty_like(tensor) for tensor in splats]
        grad_screen = torch.empty(len(splats[0]), 2)
        run(
            project_backward, *arrays, coefficients, cam, radii, rows, tiling.first_slot, slots,
            *(grad.numpy() for grad in grads), grad_screen.numpy(),
        )  # fmt: skip
        if screen is not None:
            screen.gradients = grad_screen
        grad_background = None
        if ctx.needs_input_grad[5]:
            grad_background = torch.einsum("hw,hwc->c", torch.from_numpy(transmittance), grad_rgb)
        return *grads, grad_background, None, None, None


def rasterize_cpu(
    means: torch.Tensor,
    quats: torch.Tensor,
    log_scales: torch.Tensor,
    opacity_logits: torch.Tensor,
    sh: torch.Tensor,
    camera: Camera,
    background: torch.Tensor,
    sh_degree: int,
    screen: ScreenSpace | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`rasterize` on the CPU, shapes already checked; float32. background: [3]."""
    splats = [tensor.float().contiguous() for tensor in (means, quats, log_scales, opacity_logits, sh)]
    return _Rasterize.apply(*splats, background.float().contiguous(), camera, (sh_degree + 1) ** 2, screen)
