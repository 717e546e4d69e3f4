"""Pictures for the tiles, the kilim and the jug, painted with numpy: [H, W, 3] sRGB floats in [0, 1]."""

from __future__ import annotations

import numpy as np


def _rgb(hexadecimal: str) -> np.ndarray:
    return np.array([int(hexadecimal[start : start + 2], 16) / 255 for start in (1, 3, 5)])


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y in (-1, 1) at pixel centres."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    return np.meshgrid(axis, axis)


def _tile(kind: int, rng: np.random.Generator, size: int = 96) -> np.ndarray:
    """One glazed tile of four designs: star, flower, rosette, lattice."""
    x, y = _grid(size)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    white, blue, deep, yellow, rust = (_rgb(c) for c in ("#efe9da", "#2f63a8", "#173463", "#e0a52d", "#b6562c"))
    blue = blue * rng.uniform(0.8, 1.2)
    out = np.tile(white * rng.uniform(0.88, 1.04), (size, size, 1))

    def fill(mask: np.ndarray, colour: np.ndarray) -> None:
        out[mask] = colour

    if kind == 0:
        fill(radius < 0.85 + 0.12 * np.cos(8 * angle), blue)
        fill(radius < 0.62 + 0.16 * np.cos(8 * angle), white)
        fill(radius < 0.38 + 0.12 * np.cos(8 * angle), yellow)
        fill(radius < 0.16, deep)
    elif kind == 1:
        fill(radius < 0.8 * np.abs(np.cos(2 * angle)) + 0.1, blue)
        fill(radius < 0.5 * np.abs(np.cos(2 * angle)) + 0.05, yellow)
        fill(np.hypot(np.abs(x) - 1, np.abs(y) - 1) < 0.48, deep)
        fill(np.hypot(np.abs(x) - 1, np.abs(y) - 1) < 0.3, rust)
    elif kind == 2:
        fill(np.abs(x) + np.abs(y) < 0.95, deep)
        fill(np.abs(x) + np.abs(y) < 0.78, white)
        fill(radius < 0.45 + 0.15 * np.cos(6 * angle + 0.5), rust)
        fill(radius < 0.2, yellow)
    else:
        fill(np.abs(np.abs(x) - np.abs(y)) < 0.16, blue)
        fill((radius > 0.62) & (radius < 0.8), deep)
        fill(radius < 0.3, yellow)
    fill(np.maximum(np.abs(x), np.abs(y)) > 0.95, _rgb("#8c8271"))
    return np.rot90(out, int(rng.integers(4)))


def azulejos(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A wall of glazed tiles, no two neighbours quite alike."""
    return np.concatenate(
        [np.concatenate([_tile(int(rng.integers(4)), rng) for _ in range(columns)], axis=1) for _ in range(rows)]
    )


def kilim(rng: np.random.Generator, width: int = 240, height: int = 480) -> np.ndarray:
    """A woven rug: bands of stepped diamonds, zigzags and stripes."""
    palette = [_rgb(c) for c in ("#8e2a22", "#c9722e", "#e4c27a", "#1f4a5c", "#2b2422", "#5c7350", "#efe3c8")]
    out = np.empty((height, width, 3))
    x = np.arange(width)
    top = 0
    while top < height:
        band = int(rng.integers(14, 54))
        ground, figure, accent = (palette[i] for i in rng.permutation(len(palette))[:3])
        period = int(rng.choice([20, 30, 40, 60]))
        for row in range(top, min(height, top + band)):
            v = abs((row - top) / band * 2 - 1)
            u = np.abs((x % period) / period * 2 - 1)
            line = np.where((np.round((u + v) * 6) / 6 < 0.9)[:, None], figure, ground)
            line = np.where((np.round((u + v) * 6) / 6 < 0.45)[:, None], accent, line)
            if band < 22:
                line = np.where(((x // 8 + (row - top) // 6) % 2 == 0)[:, None], figure, ground)
            out[row] = line
        top += band
    weave = 0.86 + 0.14 * ((np.arange(height)[:, None] + x) % 2)
    out *= weave[..., None] * rng.uniform(0.86, 1.08, (height, width, 1))
    out[:, :10] = out[:, -10:] = _rgb("#2b2422")
    return out


def jug_bands(rng: np.random.Generator, width: int = 512, height: int = 256) -> np.ndarray:
    """Brush bands and leaves around a white jug."""
    v, u = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    out = np.tile(_rgb("#ece4d2"), (height, width, 1))
    for at, thick, colour in (
        (0.15, 0.03, "#27518f"),
        (0.24, 0.012, "#27518f"),
        (0.72, 0.02, "#b6562c"),
        (0.8, 0.03, "#27518f"),
    ):
        out[np.abs(v - at - 0.008 * np.sin(40 * u)) < thick] = _rgb(colour)
    for index in range(14):
        cu, cv = (index + rng.uniform(-0.2, 0.2)) / 14, 0.48 + 0.07 * (-1) ** index
        lean = rng.uniform(-0.6, 0.6)
        du, dv = (u - cu) * 2, v - cv
        a, b = du * np.cos(lean) - dv * np.sin(lean), du * np.sin(lean) + dv * np.cos(lean)
        out[(a / 0.035) ** 2 + (b / 0.11) ** 2 < 1] = _rgb("#3c6f4a") if index % 3 else _rgb("#d49a2a")
    return out
