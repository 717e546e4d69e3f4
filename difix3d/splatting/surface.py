"""Depth of the surface that splats show, for carrying photos by it.

The depth that `rasterize` gives is the mean z along the ray. Where 3 % of a ray's weight passes a wall and lands on
a backdrop ten times as far away, that mean lies 27 % behind the wall: enough to shift a photo by many pixels. Here
inverse depths are averaged, in which far things weigh little, and then averaged again over the splats that lie near
the first answer: an M-estimator of location with Welsch's weight function (Holland and Welsch 1977), one step of
reweighting per pass, in which each splat's residual is taken at the pixel of its centre.

Notation: z_s depth of splat s; y_s = z_near / z_s in (0, 1], its inverse depth; y(p) the estimate at pixel p;
w_s(p) its blending weight; v_s = exp(-((y_s - y(p_s)) / (_NEARBY y(p_s)))^2 / 2), how far it is believed.
    y <- sum(w_s v_s y_s) / sum(w_s v_s)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from difix3d.geometry import project
from difix3d.splatting.base import NEAR_PLANE
from difix3d.splatting.dispatch import render_view
from difix3d.splatting.initialise import SH_C0
from difix3d.types import Camera, Splats

_NEARBY = 0.1
"""Of the inverse depth: thicker than a fitted wall, thinner than the gap to what is behind it."""
_MIN_TRUST = 1e-3
"""No splat is disbelieved altogether: a pixel that only far splats cover still has a depth."""
_MIN_ALPHA = 1e-3
_PASSES = 1
"""Reweightings. The second one changed depth by less than a tenth of what the first did."""


def surface_depth(splats: Splats, camera: Camera, *, renderer: str = "auto") -> NDArray[np.float32]:
    """[H, W] float32 world units along z, 0 where nothing was hit. Costs two renders without view-dependent colour."""
    if not len(splats):
        return np.zeros((camera.height, camera.width), np.float32)
    pixels, z = project(camera, splats.means)
    drawn = z > NEAR_PLANE
    # What is nearer than almost all splats is clipped to the same inverse depth: colours end at 1.
    z_near = float(np.quantile(z[drawn], 0.002)) if drawn.any() else 1.0
    y_s = np.where(drawn, np.clip(z_near / np.where(drawn, z, 1.0), 0.0, 1.0), 0.0)
    sums, alpha = _blended(splats, np.repeat(y_s[:, None], 3, axis=1), camera, renderer)
    y = sums[..., 0] / np.maximum(alpha, _MIN_ALPHA)

    column = np.clip(np.nan_to_num(pixels[:, 0]), 0, camera.width - 1).astype(np.int64)
    row = np.clip(np.nan_to_num(pixels[:, 1]), 0, camera.height - 1).astype(np.int64)
    for _ in range(_PASSES):
        there = np.maximum(y[row, column], 1e-6)
        v_s = np.exp(-0.5 * np.square((y_s - there) / (_NEARBY * there))) + _MIN_TRUST
        v_s = np.minimum(v_s, 1.0)
        sums, _ = _blended(splats, np.stack([v_s, v_s * y_s, np.zeros_like(y_s)], axis=1), camera, renderer)
        y = sums[..., 1] / np.maximum(sums[..., 0], _MIN_ALPHA * _MIN_TRUST)
    found = (alpha > _MIN_ALPHA) & (y > 0)
    return np.where(found, z_near / np.where(found, y, 1.0), 0.0).astype(np.float32)


def _blended(
    splats: Splats, values: NDArray, camera: Camera, renderer: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(sum over the ray of w_s values_s [H, W, 3], alpha [H, W]); values [N, 3] in [0, 1]."""
    sh = ((values - 0.5) / SH_C0).astype(np.float32)[:, None, :]
    painted = Splats(splats.means, splats.quats, splats.log_scales, splats.opacity_logits, sh)
    rgb, alpha, _ = render_view(painted, camera, renderer=renderer)
    return rgb, alpha
