"""What the network of `lite` is made of besides plain layers, written for two cores that wait for memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_of_fours(conv: nn.Conv2d, x: Tensor, *beside: Tensor) -> Tensor:
    """`conv` of pixel_unshuffle(x, 2), and of what lies beside it at that size.

    Pairs of pixels are moved in one piece; pixel_unshuffle moves single numbers. The channels then lie in another order
    than its, and the weights are put into it too.
    """
    batch, channels, height, width = x.shape
    pairs = x.movedim(1, -1).reshape(batch, height // 2, 2, width // 2, 2 * channels)
    fours = [pairs[:, :, 0], pairs[:, :, 1], *(each.movedim(1, -1) for each in beside)]
    of_x, of_others = conv.weight.tensor_split([4 * channels], dim=1)
    of_x = of_x.unflatten(1, (channels, 4)).transpose(1, 2).flatten(1, 2)
    weight = torch.cat([of_x, of_others], dim=1)
    return F.conv2d(torch.cat(fours, dim=-1).movedim(-1, 1), weight, conv.bias, padding=conv.padding)


def conv_of_parts(conv: nn.Conv2d, parts: list[Tensor]) -> Tensor:
    """`conv`, of one pixel, of the parts side by side, without laying them side by side first."""
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    total = F.conv2d(parts[0], weights[0], conv.bias)
    for part, weight in zip(parts[1:], weights[1:]):
        total.add_(F.conv2d(part, weight))
    return total


def most_within(x: Tensor, radius_px: int) -> Tensor:
    """The maximum of [B, C, H, W] over squares. Along one side and then the other, of spans that are doubled until they
    are long enough; max_pool2d asks every pixel of a square, and not on all cores."""
    side = 2 * radius_px + 1
    x = F.pad(x, (radius_px,) * 4, value=-torch.inf)
    for dim in (2, 3):
        covered = 1
        while covered < side:
            step = min(covered, side - covered)
            length = x.shape[dim] - step
            x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
            covered += step
    return x


def gaussian(x: Tensor, sigma_px: float) -> Tensor:
    """Blurs each channel of [B, C, H, W], borders mirrored."""
    radius = round(3 * sigma_px)
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    each = F.pad(x.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
    each = F.conv2d(F.conv2d(each, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return each[:, 0].unflatten(0, x.shape[:2])


def doubled(x: Tensor) -> Tensor:
    """Bilinear, not transposed convolution: that leaves grids."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
