"""How far each picture that lite may show is from the photo, at each pixel: what it learns to choose by.

LPIPS sums differences of features over a picture; here they are kept where they are. They are made once for each pair,
and training then needs no look through VGG-16 at all: that took nine tenths of its time. And they tell of each picture
what it would be to show it, however far from the blend that is; a slope tells of a small step only.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difix3d.fixers.difix.precision import fast_dtype
from difix3d.fixers.lite.planes import CARRIED_CHANNELS
from difix3d.losses import LPIPS

MOST = 1.5
"""Larger errors are cut to this, which is 255 as a byte. A picture of noise is about so far from any other."""
_AT_ONCE = 3
_LOOSE = len(CARRIED_CHANNELS)


def errors_of(
    target: NDArray[np.uint8], frame: NDArray[np.uint8], photos: NDArray[np.uint8], lpips: LPIPS
) -> NDArray[np.uint8]:
    """[H, W, 1 + 2 N]: of the render, of each photo as carried exactly, and of each as carried in patches.

    target: [H, W, 3]; frame: [H, W, 5], photos: [N, H, W, 10] as `planes_of` gives them; sides of 16 pixels at least.
    """
    pictures = [target, frame[..., :3], *photos[..., :3], *photos[..., _LOOSE : _LOOSE + 3]]
    height, width = target.shape[:2]
    half = height // 2, width // 2
    with torch.inference_mode():
        parts = [_levels(pictures[start : start + _AT_ONCE], lpips) for start in range(0, len(pictures), _AT_ONCE)]
        total = torch.zeros(len(pictures) - 1, 1, *half)
        for level, seen in enumerate(map(torch.cat, zip(*parts))):
            head = getattr(lpips, f"head_{level}")[:, None, None]
            apart = (head * (seen[1:] - seen[:1]).square()).sum(1, keepdim=True).cpu()
            smooth = {"mode": "area"} if apart.shape[-1] >= half[1] else {"mode": "bilinear", "align_corners": False}
            total += F.interpolate(apart, size=half, **smooth)
    values = (total[:, 0].permute(1, 2, 0).numpy() * (255 / MOST) + 0.5).clip(0, 255).astype(np.uint8)
    return np.dstack(
        [
            cv2.resize(np.ascontiguousarray(values[..., each]), (width, height), interpolation=cv2.INTER_NEAREST)
            for each in range(values.shape[-1])
        ]
    )


def _levels(pictures: Sequence[NDArray[np.uint8]], lpips: LPIPS) -> list[Tensor]:
    """What LPIPS compares, of unit length at each pixel."""
    device = lpips.shift.device
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device).float() / 255
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    fast = device.type == "cuda" or fast_dtype(device) == torch.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        return unit_levels(pixels, lpips)


def unit_levels(pixels: Tensor, lpips: LPIPS) -> list[Tensor]:
    """As lpips.look, of [B, 3, H, W] in [0, 1] and bearable in bfloat16: lengths in float32, of a slope that is bounded
    where little is seen."""
    levels = [level.float() for level in lpips.features((2 * pixels - 1 - lpips.shift) / lpips.scale)]
    return [level * torch.rsqrt(level.square().sum(1, keepdim=True) + 1e-10) for level in levels]
