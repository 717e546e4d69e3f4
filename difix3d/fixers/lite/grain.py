"""Noise in octaves, which the network of lite draws texture with: how strong each is at each pixel, it decides.

A regression cannot place leaves that no photo shows, and its mean of all of them is a smear. Without noise to shape,
the network drew a grid of pixels instead, which LPIPS takes for detail and people for a fault. (Noise as a source of
detail: Karras et al. 2019, section 3.2.) The pattern is fixed, so a fix repeats, and bound to the frame's pixels, so
tiles fit together.
"""

from __future__ import annotations

import functools
import itertools

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIGMAS_PX = (0.0, 0.7, 1.4, 2.8, 5.6)
"""An octave is what blurring by the first and not by the second leaves."""
OCTAVES = len(SIGMAS_PX) - 1
_PERIOD_PX = 1024
"""After which the pattern repeats: as large as a tile, which then needs no copy of it."""


@functools.cache
def _pattern() -> NDArray[np.float32]:
    """[OCTAVES, 1024, 1024], each of mean 0 and variance 1; it goes on at its borders as it begins."""
    margin = int(4 * SIGMAS_PX[-1])
    white = np.random.default_rng(0).standard_normal((_PERIOD_PX, _PERIOD_PX), dtype=np.float32)
    wide = np.pad(white, margin, mode="wrap")
    blurred = [wide if sigma == 0 else cv2.GaussianBlur(wide, (0, 0), sigma) for sigma in SIGMAS_PX]
    octaves = np.stack([np.asarray(fine) - coarse for fine, coarse in itertools.pairwise(blurred)])
    octaves = octaves[:, margin:-margin, margin:-margin]
    return np.ascontiguousarray(octaves / octaves.std(axis=(1, 2), keepdims=True), dtype=np.float32)


def grain(top: int, left: int, height: int, width: int) -> Tensor:
    """[1, OCTAVES, height, width] of the pattern from the pixel (top, left) on."""
    pattern = _pattern()
    top, left = top % _PERIOD_PX, left % _PERIOD_PX
    if top + height <= _PERIOD_PX and left + width <= _PERIOD_PX:
        part = pattern[:, top : top + height, left : left + width]
    else:
        rows, columns = (np.arange(first, first + side) % _PERIOD_PX for first, side in ((top, height), (left, width)))
        part = pattern[:, rows[:, None], columns]
    return torch.from_numpy(part)[None]


def some_grain(frames: Tensor, draws: tuple[int, ...]) -> Tensor:
    """[B, OCTAVES, H, W] for frames [B, C, H, W], on their device: each from another place, to train on. The same draws
    give the same."""
    count, _, height, width = frames.shape
    places = np.random.default_rng(draws).integers(_PERIOD_PX, size=(count, 2))
    return torch.cat([grain(int(top), int(left), height, width) for top, left in places]).to(frames.device)
