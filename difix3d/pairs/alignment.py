"""Whether a render and the photo taken at its camera show the same thing in the same place.

A photo whose pose is wrong makes a false pair: a fixer trained on it learns to move things. Renders of rough fits are
blurred, full of floaters, and of another exposure, so pictures are compared by their gradients, block by block: each
block of the render is looked for around its place in the photo by normalised cross-correlation (Lewis 1995), which a
gain and an offset of colours do not change. Wrong depth shifts some blocks this way and some that; a wrong pose
shifts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.types import require_shape

Floats = NDArray[np.float32]

_SMOOTH_PX = 1.5
"""Renders are a little blurred: finer gradients than these are the photo's alone."""
_BLOCK_SHARE = 1 / 6  # of the longer side
_SEARCH_SHARE = 0.04
"""Of the longer side: how far a block is looked for."""
_COVERED = 0.7
"""Mean alpha of a block that shows enough of the scene to be looked for."""
_PLAIN = 0.004
"""Root mean square gradient, in shares of white a pixel, of blocks without anything to hold on to."""
_CLEARLY = 0.08
"""A shift counts where it is better than none by so much: in repeated patterns many are as good."""
_FOUND = 0.3
"""Correlation from which a block is found again. Unrelated pictures reach 0.25 by searching."""

# Of 72 renders of sparse, halved and stopped fits of six captures none had a median shift at all; two had a
# correlation below 0.3, and those showed nothing but smears. Of photos of another place hardly any reaches 0.1.
_MIN_BLOCKS = 4
_MIN_ALPHA = 0.5
"""With more holes than scene there is more to invent than to fix."""
_SHIFTED_SHARE, _SHIFTED_PX = 0.01, 2.0
"""Of the longer side (4.8 px at 480), and at least so many pixels. Wrong depth moves all of a subject by up to 0.8 %
in short fits of few photos, and that is a flaw to learn from; poses that are wrong are so by more."""
_UNRELATED = 0.12


@dataclass(frozen=True)
class Alignment:
    """How a render lies on its photo.

    alpha: mean of the render's. blocks: how many could be looked for; found: how many of them were, at any shift.
    correlation: median over the blocks where they lie; best: the same at each block's best shift. shift_px: (x, y)
    by which the blocks that were found lie off in the photo, median; long_side_px: of both pictures.
    """

    alpha: float
    blocks: int
    found: int
    correlation: float
    best: float
    shift_px: tuple[float, float]
    long_side_px: int

    @property
    def problem(self) -> str:
        """Why the two make no pair, as "KIND: in words"; "" where they do."""
        if self.alpha < _MIN_ALPHA:
            return f"empty: the splats cover {self.alpha:.0%} of the picture"
        if self.blocks < _MIN_BLOCKS:
            return ""  # a plain wall: nothing speaks against it
        off = float(np.hypot(*self.shift_px))
        if self.found >= _MIN_BLOCKS and off > max(_SHIFTED_PX, _SHIFTED_SHARE * self.long_side_px):
            return f"misaligned: the photo shows the render's content {off:.1f} px beside it"
        if self.correlation < _UNRELATED and self.best < _FOUND:
            return f"unrelated: the render shows nothing of the photo (correlation {self.correlation:.2f})"
        return ""


def align(render: NDArray[np.uint8], alpha: Floats, photo: NDArray[np.uint8]) -> Alignment:
    """Compare a render [H, W, 3] and its alpha [H, W] in [0, 1] with the photo [H, W, 3] of the same size."""
    height, width = photo.shape[:2]
    require_shape("render", render, (height, width, 3))
    require_shape("alpha", alpha, (height, width))
    long_side = max(height, width)
    side, reach = max(8, round(_BLOCK_SHARE * long_side)), max(2, round(_SEARCH_SHARE * long_side))
    ours, theirs = _gradients(render), _gradients(photo)
    at_place, at_best, shifts = [], [], []
    for top in range(reach, height - reach - side + 1, side):
        for left in range(reach, width - reach - side + 1, side):
            inside = slice(top, top + side), slice(left, left + side)
            block = ours[inside]
            if alpha[inside].mean() < _COVERED or min(_strength(block), _strength(theirs[inside])) < _PLAIN:
                continue
            around = theirs[top - reach : top + side + reach, left - reach : left + side + reach]
            correlation = cv2.matchTemplate(around, block, cv2.TM_CCOEFF_NORMED)
            row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
            best, here = float(correlation[row, column]), float(correlation[reach, reach])
            at_place.append(here)
            at_best.append(best)
            if best >= _FOUND:
                shifts.append((column - reach, row - reach) if best > here + _CLEARLY else (0, 0))
    shift_x, shift_y = np.median(np.array(shifts, float), axis=0) if shifts else (0.0, 0.0)
    return Alignment(
        alpha=round(float(alpha.mean()), 4),
        blocks=len(at_best),
        found=len(shifts),
        correlation=round(float(np.median(at_place)), 4) if at_place else 0.0,
        best=round(float(np.median(at_best)), 4) if at_best else 0.0,
        shift_px=(float(shift_x), float(shift_y)),
        long_side_px=long_side,
    )


def _gradients(rgb: NDArray[np.uint8]) -> Floats:
    """[H, W, 2] of the smoothed luma, in shares of white a pixel."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255.0)
    smooth = cv2.GaussianBlur(grey, (0, 0), _SMOOTH_PX, borderType=cv2.BORDER_REFLECT)
    # Sobel's kernel sums to 8 over a step of 2 pixels.
    return np.dstack([cv2.Sobel(smooth, cv2.CV_32F, 1 - axis, axis, ksize=3) / np.float32(8.0) for axis in (0, 1)])


def _strength(gradients: Floats) -> float:
    return float(np.sqrt(np.square(gradients).sum(axis=-1).mean()))
