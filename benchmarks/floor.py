"""How fast blending could be at best on this machine: the pairs that matter, times what one costs, over the peak."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from difix3d.splatting.base import MIN_ALPHA, MIN_TRANSMITTANCE
from difix3d.splatting.cpu.projection import EXTENT_X, EXTENT_Y, LOG2_OPACITY, A, B, C, X, Y

FLOP_PER_PAIR = 85
"""One pixel and one splat, forward and backward: counted in the inner loops of cpu/blend.py, exp2 as its polynomial."""


def useful_pairs(rows: NDArray[np.float32], width: int, height: int) -> int:
    """How many (pixel, splat) pairs add to a picture. rows: projected splats front to back (cpu/projection.py)."""
    transmittance = np.ones((height, width), np.float32)
    pairs = 0
    for row in rows:
        x0, x1 = (int(np.clip(edge, 0, width)) for edge in (row[X] - row[EXTENT_X], row[X] + row[EXTENT_X] + 1))
        y0, y1 = (int(np.clip(edge, 0, height)) for edge in (row[Y] - row[EXTENT_Y], row[Y] + row[EXTENT_Y] + 1))
        dx, dy = row[X] - np.arange(x0, x1) - 0.5, (row[Y] - np.arange(y0, y1) - 0.5)[:, None]
        alpha = np.minimum(np.exp2(row[LOG2_OPACITY] - (row[A] * dx + row[B] * dy) ** 2 - (row[C] * dy) ** 2), 0.999)
        before = transmittance[y0:y1, x0:x1]
        counts = (alpha >= MIN_ALPHA) & (before > MIN_TRANSMITTANCE)
        pairs += int(counts.sum())
        transmittance[y0:y1, x0:x1] = np.where(counts, before * (1 - alpha), before)
    return pairs


def peak_gflops() -> float:
    """float32, of a matrix product on torch's threads: the most this machine is seen to do."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best / 1e9
