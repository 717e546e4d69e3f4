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
        return np.clip(rgb * self.gain + self.offset, 0.0, 1.0)


def gaussian(picture: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def box(picture: Floats, radius_px: int) -> Floats:
    """Mean over a square of side 2 radius + 1."""
    side = 2 * radius_px + 1
    return np.asarray(cv2.blur(picture, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


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
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    if int(mask.sum()) < _MIN_PIXELS:
        return Exposure(gain, offset)
    ours, theirs, prior = ours[mask], theirs[mask], prior[mask]
    for channel in range(3):
        x, y, w = ours[:, channel], theirs[:, channel], prior
        for _ in range(_EXPOSURE_ROUNDS):
            total = w.sum() + 1e-12
            mean_x, mean_y = (w @ x) / total, (w @ y) / total
            variance = (w @ (x - mean_x) ** 2) / total
            covariance = (w @ ((x - mean_x) * (y - mean_y))) / total
            slope = np.clip((covariance + _GAIN_PRIOR) / (variance + _GAIN_PRIOR), *_GAIN_LIMITS)
            shift = mean_y - slope * mean_x
            w = prior / (1 + np.square((slope * x + shift - y) / _EXPOSURE_OUTLIER))
        gain[channel], offset[channel] = slope, shift
    return Exposure(gain, offset)


def flow_to(render: Floats, photo: Floats, pixel: float = 1.0) -> Floats:
    """[H, W, 2] pixels: `photo` at p + flow(p) shows what `render` shows at p.

    pixel: full-size pixels that one of these stands for.

    Dense inverse search (Kroeger et al. 2016). Depth errors shift a warped photo; aligning it by what can be seen
    is the idea of Floating Textures (Eisemann et al. 2008). Searched both ways: where following there and back leads
    elsewhere (clouds, moving cars), flow goes to zero, and what depth says stays. Zero for pictures too small to search
    in.
    """
    height, width = render.shape[:2]
    if min(height, width) < 16:
        return np.zeros((height, width, 2), np.float32)
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    # Halvings of the full size that the search ends at: the same grid, about, for a picture twice as large.
    finest = 2 if pixel * max(height, width) > _LARGE_PX else 1
    search.setFinestScale(max(0, finest - round(np.log2(pixel))))
    grey = [(luma(picture) * 255.0 + 0.5).astype(np.uint8) for picture in (render, photo)]
    there, back = (np.asarray(search.calc(a, b, None), dtype=np.float32) for a, b in (grey, grey[::-1]))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    returned = cv2.remap(back, x + there[..., 0], y + there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    astray = np.linalg.norm(there + returned, axis=-1)
    tolerated = _ASTRAY_PX / pixel + _ASTRAY_SHARE * np.linalg.norm(there, axis=-1)
    kept = np.exp(-0.5 * np.square(astray / tolerated)).astype(np.float32)
    return there * gaussian(kept, _FLOW_FEATHER_PX / pixel)[..., None]


def agreement(photo: Floats, render: Floats, pixel: float = 1.0) -> Floats:
    """[H, W] in [0, 1]: whether both show the same thing, by colour and by pattern, at the render's sharpness.

    pixel: full-size pixels that one of these stands for, where both pictures were made smaller.
    """
    a, b = gaussian(photo, _SHARPNESS_PX / pixel), gaussian(render, _SHARPNESS_PX / pixel)
    near, wide = round(_COLOUR_RADIUS_PX / pixel), round(_PATTERN_RADIUS_PX / pixel)
    # A box filter's running sums can end a rounding below zero.
    error2 = np.maximum(box(np.square(a - b).mean(axis=-1), near), 0.0)
    same_colour = np.exp(-0.5 * error2 / _SAME_COLOUR**2)
    x, y = luma(a), luma(b)
    mean_x, mean_y = box(x, wide), box(y, wide)
    variance_x = np.maximum(box(x * x, wide) - mean_x * mean_x, 0.0)
    variance_y = np.maximum(box(y * y, wide) - mean_y * mean_y, 0.0)
    covariance = box(x * y, wide) - mean_x * mean_y
    correlation = (covariance + _PLAIN) / np.sqrt((variance_x + _PLAIN) * (variance_y + _PLAIN))
    same_pattern = np.clip((correlation - _UNCORRELATED) / (_CORRELATED - _UNCORRELATED), 0.0, 1.0)
    return (same_colour * same_pattern).astype(np.float32)
