"""How much of a fix to show, learned from photos that the fit has not seen.

Render and photo are wrong in ways of their own: one is soft, the other lies pixels off where depth is. Where both are
sharp and off independently (leaves, tiles, photos far apart) a fix looks better and is further from the truth than the
render was. Whether a capture is like that cannot be told from the two alone, but photos that were kept out of its fit
tell. With t the photo, r the render, f the fix and s the strength, the error of r + s (f - r) is

    |t - r|^2 - 2 s (t - r).(f - r) + s^2 |f - r|^2

least at s* = (t - r).(f - r) / |f - r|^2 and that of the render again at 2 s*. Fixes are shown nearly up to there: they
are to look sharp, and to harm nothing. Each photo counts by its own |t - r|^2, as in PSNR: or the worst would decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_UP_TO = 0.85
"""Of the way to where the render would be as good. By that, fixes that gain much are shown whole, and those that lose
gain a little (benchmarks/RESULTS.md)."""
_LEAST = 0.25
"""Where fixes only harm, so much is shown still: people have something to judge, and a few photos may be wrong."""

_INVISIBLE = 0.25
"""An error of half a step of 255, squared, is none: a blank wall rendered exactly must not outweigh all others."""


@dataclass(frozen=True)
class Compared:
    """A fix beside the photo taken there, means over pixels and channels of (0..255)^2. before: |t - r|^2;
    along: (t - r).(f - r); change: |f - r|^2."""

    photo: str
    before: float
    along: float
    change: float


def compare(name: str, photo: Picture, render: Picture, fixed: Picture) -> Compared:
    """Three pictures [H, W, 3] of one view."""
    t, r, f = (np.asarray(picture, dtype=np.float32) for picture in (photo, render, fixed))
    missing, changed = t - r, f - r
    parts = (missing * missing, missing * changed, changed * changed)
    return Compared(name, *(float(part.mean(dtype=np.float64)) for part in parts))


def strength_of(compared: Iterable[Compared]) -> float:
    """In [_LEAST, 1], in hundredths; 1 where nothing was compared or nothing changed."""
    along = change = 0.0
    for one in compared:
        weight = 1 / max(one.before, _INVISIBLE)
        along += weight * one.along
        change += weight * one.change
    if change <= 0:
        return 1.0
    return round(min(1.0, max(_LEAST, _UP_TO * 2 * along / change)), 2)


def shown(render: Picture, fixed: Picture, strength: float) -> Picture:
    """[H, W, 3]: the render, changed towards the fix; `fixed` itself at a strength of 1."""
    if strength >= 1.0:
        return fixed
    mixed = render.astype(np.float32)
    mixed += np.float32(strength) * (fixed - mixed)
    return (mixed + 0.5).astype(np.uint8)
