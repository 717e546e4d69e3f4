"""L1 + SSIM in plain torch: for CUDA, and as the float64 reference that the CPU kernels are tested against."""

from __future__ import annotations

import torch

C1, C2 = 0.01**2, 0.03**2


def gaussian_blur(pictures: torch.Tensor) -> torch.Tensor:
    """[M, 1, H, W] filtered by the 11x11 Gaussian of sigma 1.5, zero beyond the border."""
    taps = torch.arange(-5, 6, dtype=pictures.dtype, device=pictures.device)
    window = torch.exp(-0.5 * (taps / 1.5) ** 2)
    window = (window / window.sum()).reshape(1, 1, 1, 11)
    rows = torch.nn.functional.conv2d(pictures, window, padding=(0, 5))
    return torch.nn.functional.conv2d(rows, window.transpose(2, 3), padding=(5, 0))


def l1_ssim_torch(prediction: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """As `difix3d.splatting.l1_ssim`, in the dtype and on the device of its inputs."""
    x, y = (picture.permute(2, 0, 1)[:, None] for picture in (prediction, target))
    mx, my, squares, product = gaussian_blur(torch.cat([x, y, x * x + y * y, x * y])).chunk(4)
    means, both = mx * mx + my * my, mx * my
    ssim = (2 * both + C1) * (2 * (product - both) + C2) / ((means + C1) * (squares - means + C2))
    return (1 - ssim_weight) * (x - y).abs().mean() + ssim_weight * (1 - ssim.mean())
