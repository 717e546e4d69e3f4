"""Make a warped photo fit a render: its exposure, its last pixels of shift, and how far the two agree.

Pictures are [H, W, 3] float32 in [0, 1]; weights [H, W] float32 in [0, 1]. The render is the judge of place and
colour throughout: it is blurred and broken in parts, but it is what all photos agreed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.warping import displaced

Floats = NDArray[np.float32]

_MIN_PIXELS = 12
_GAIN_LIMITS = (0.6, 1.6)
_EXPOSURE_REDUCTION = 8  # colours are compared as means over so many pixels a side: small shifts must not matter
_EXPOSURE_OUTLIER, _EXPOSURE_ROUNDS = 0.05, 10
_GAIN_PRIOR = 2e-3
"""Variance that stands for "gain 1": a plain wall says nothing of contrast."""

_LARGE_PX = 800
_ASTRAY_PX, _ASTRAY_SHARE = 1.0, 0.1
"""Flow that leads back to this far from where it came from, in full-size pixels and as a share of its length, keeps
exp(-1/2) of itself."""
_FLOW_FEATHER_PX = 2.0

_SHARPNESS_PX = 1.5
"""Both pictures are compared at about the render's sharpness."""
_COLOUR_RADIUS_PX, _PATTERN_RADIUS_PX = 3, 4
_SAME_COLOUR = 0.1
"""Root mean square difference over 7x7 pixels where agreement has fallen to exp(-1/2)."""
_CORRELATED, _UNCORRELATED = 0.55, 0.05
"""Correlation over 9x9 pixels from which patterns count as the same; up to which as different."""
_PLAIN = 2e-4
"""Variance of plain surfaces (1.4 % of white): they correlate with anything."""


@dataclass(frozen=True)
class Exposure:
    """colour -> gain * colour + offset, each [3]."""

    gain: Floats
    offset: Floats

    def apply(self, rgb: Floats) -> Floats:
        """[H, W, 3], clipped to [0, 1]."""
        matrix = np.column_stack([np.diag(self.gain), self.offset])  # numpy takes pixels of three one by one
        matched = np.asarray(cv2.transform(rgb, matrix), dtype=np.float32)
        return np.clip(matched, 0.0, 1.0, out=matched)

    def apply_to_bytes(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3], as `apply` but looked up: there are only 256 of them."""
        levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255.0)
        return np.asarray(cv2.LUT(rgb, to_bytes(np.clip(self.gain * levels + self.offset, 0.0, 1.0))[None]))


def to_bytes(values: Floats) -> NDArray[np.uint8]:
    """Rounded, of [H, W] or [H, W, C] known to be from 0 to 1. formats.image.to_uint8 bounds them first, and goes over
    them four times."""
    return np.asarray(cv2.convertScaleAbs(values, alpha=255.0))


def gaussian(picture: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def box(picture: Floats, radius_px: int) -> Floats:
    """Mean over a square of side 2 radius + 1."""
    side = 2 * radius_px + 1
    return np.asarray(cv2.blur(picture, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def squares(vectors: Floats) -> Floats:
    """[H, W]: squared lengths of [H, W, C]. By channel: numpy takes sums over a short last axis one by one."""
    total = np.square(vectors[..., 0])
    for channel in range(1, vectors.shape[-1]):
        total += np.square(vectors[..., channel])
    return total


def luma(rgb: Floats) -> Floats:
    """[H, W], BT.601."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def match_exposure(photo: Floats, render: Floats, weight: Floats) -> Exposure:
    """The gain and offset per channel that bring `photo` to the colours of `render` where `weight` says they match.

    Weighted least squares, reweighted against outliers (Cauchy); gain 1, offset 0 where too few pixels match.
    """
    height, width = weight.shape
    size = (max(1, width // _EXPOSURE_REDUCTION), max(1, height // _EXPOSURE_REDUCTION))
    ours, theirs, prior = (
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.float64)
        for picture in (photo, render, weight)
    )
    mask = prior > 0.1
    if int(mask.sum()) < _MIN_PIXELS:
        return Exposure(np.ones(3, np.float32), np.zeros(3, np.float32))
    x, y, prior = ours[mask].T.copy(), theirs[mask].T.copy(), prior[mask]
    w = np.broadcast_to(prior, x.shape)
    for _ in range(_EXPOSURE_ROUNDS):
        total = w.sum(axis=1) + 1e-12
        mean_x, mean_y = ((w * each).sum(axis=1) / total for each in (x, y))
        away = x - mean_x[:, None]
        variance, covariance = ((w * away * each).sum(axis=1) / total for each in (away, y - mean_y[:, None]))
        slope = np.clip((covariance + _GAIN_PRIOR) / (variance + _GAIN_PRIOR), *_GAIN_LIMITS)
        shift = mean_y - slope * mean_x
        w = prior / (1 + np.square((slope[:, None] * x + shift[:, None] - y) / _EXPOSURE_OUTLIER))
    return Exposure(slope.astype(np.float32), shift.astype(np.float32))


def flow_to(render: Floats, photo: Floats, pixel: float = 1.0, *, coarse: bool = False) -> Floats:
    """[H, W, 2] pixels: `photo` at p + flow(p) shows what `render` shows at p.

    pixel: full-size pixels that one of these stands for. coarse: search at half the size, in a quarter of the time, to
    a tenth of a pixel.

    Dense inverse search (Kroeger et al. 2016). Depth errors shift a warped photo; aligning it by what can be seen
    is the idea of Floating Textures (Eisemann et al. 2008). Searched both ways, back at half the size at most: where
    following there and back leads elsewhere (clouds, moving cars), flow goes to zero, and what depth says stays. Zero
    for pictures too small to search in.
    """
    height, width = render.shape[:2]
    if min(height, width) < 16:
        return np.zeros((height, width, 2), np.float32)
    # Halvings of the full size that the search ends at: the same grid, about, for a picture twice as large.
    finest = max(0, (2 if pixel * max(height, width) > _LARGE_PX else 1) - round(np.log2(pixel)))
    grey = [(luma(picture) * 255.0 + 0.5).astype(np.uint8) for picture in (render, photo)]
    there = _searched(grey[0], grey[1], finest + coarse)
    back = _searched(grey[1], grey[0], max(finest, 1) + coarse, refined=False)
    returned = displaced(back, there)
    tolerated = np.float32(_ASTRAY_PX / pixel) + np.float32(_ASTRAY_SHARE) * np.sqrt(squares(there))
    kept = np.exp(-0.5 * squares(there + returned) / np.square(tolerated)).astype(np.float32)
    return there * gaussian(kept, _FLOW_FEATHER_PX / pixel)[..., None]


def _searched(a: NDArray[np.uint8], b: NDArray[np.uint8], finest: int, refined: bool = True) -> Floats:
    """[H, W, 2] from `a` to `b`, searched down to the picture halved `finest` times. Not refined, it takes half the
    time and tells whole pixels only."""
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(finest)
    if not refined:
        search.setVariationalRefinementIterations(0)
    return np.asarray(search.calc(a, b, None), dtype=np.float32)


def agreement(photo: Floats, render: Floats, pixel: float = 1.0) -> Floats:
    """[H, W] in [0, 1]: whether both show the same thing, by colour and by pattern, at the render's sharpness.

    pixel: full-size pixels that one of these stands for, where both pictures were made smaller.
    """
    a, b = gaussian(photo, _SHARPNESS_PX / pixel), gaussian(render, _SHARPNESS_PX / pixel)
    near, wide = round(_COLOUR_RADIUS_PX / pixel), round(_PATTERN_RADIUS_PX / pixel)
    # A box filter's running sums can end a rounding below zero.
    error2 = np.maximum(box(squares(a - b) / np.float32(3.0), near), 0.0)
    same_colour = np.exp(-0.5 * error2 / _SAME_COLOUR**2)
    x, y = luma(a), luma(b)
    mean_x, mean_y = box(x, wide), box(y, wide)
    variance_x = np.maximum(box(x * x, wide) - mean_x * mean_x, 0.0)
    variance_y = np.maximum(box(y * y, wide) - mean_y * mean_y, 0.0)
    covariance = box(x * y, wide) - mean_x * mean_y
    correlation = (covariance + _PLAIN) / np.sqrt((variance_x + _PLAIN) * (variance_y + _PLAIN))
    same_pattern = np.clip((correlation - _UNCORRELATED) / (_CORRELATED - _UNCORRELATED), 0.0, 1.0)
    return (same_colour * same_pattern).astype(np.float32)
