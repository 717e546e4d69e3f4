"""L1 + SSIM in plain torch: for CUDA, and as the float64 reference that the CPU kernels are tested against."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

C1, C2 = 0.01**2, 0.03**2
HALF = 5


class _Blur(torch.autograd.Function):
    """[M, H, W] filtered by the 11x11 Gaussian of sigma 1.5, zero beyond the border.

    Sums of shifted pictures and no convolution: cuDNN may take TF32 for that, with 10 bits, and of bright smooth
    pictures' variance E[x^2] - E[x]^2 nothing would be left."""

    @staticmethod
    def forward(ctx: Any, pictures: torch.Tensor) -> torch.Tensor:
        return _filtered(_filtered(pictures, 2), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: torch.Tensor) -> torch.Tensor:
        return _filtered(_filtered(slopes, 1), 2)  # the window is symmetric: the filter is its own transpose


def _filtered(pictures: torch.Tensor, axis: int) -> torch.Tensor:
    taps = torch.arange(-HALF, HALF + 1, dtype=torch.float64)
    window = torch.exp(-0.5 * (taps / 1.5) ** 2)
    border = (HALF, HALF) if axis == 2 else (0, 0, HALF, HALF)
    wide = torch.nn.functional.pad(pictures, border)
    total = torch.zeros_like(pictures)
    for start, weight in enumerate((window / window.sum()).tolist()):
        total.add_(wide.narrow(axis, start, pictures.shape[axis]), alpha=weight)
    return total


def l1_ssim_torch(prediction: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """As `difix3d.splatting.l1_ssim`, in the dtype and on the device of its inputs."""
    x, y = (picture.permute(2, 0, 1) for picture in (prediction, target))
    mx, my, squares, product = _Blur.apply(torch.cat([x, y, x * x + y * y, x * y])).chunk(4)
    means, both = mx * mx + my * my, mx * my
    variances = squares - means
    # Rounding must not make them negative. Their gradient stays, as in the CPU kernels: it cancels with the others.
    variances = variances + (-variances).clamp(min=0).detach()
    ssim = (2 * both + C1) * (2 * (product - both) + C2) / ((means + C1) * (variances + C2))
    return (1 - ssim_weight) * (x - y).abs().mean() + ssim_weight * (1 - ssim.mean())
