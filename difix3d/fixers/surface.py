"""The depth that a photo is carried into a frame by: the frame's, or the photo's own where the two disagree.

Splats are fitted to the photos, so depth rendered at a photo is better than depth rendered away from all of them,
where floaters hang before the camera and walls have come apart. Seen from the frame, the photo's surface has holes and
no say about what the photo does not show: there the frame's own depth stays, and where the photo's is so near that the
frame would have to show it. Where both agree the frame's is finer.
What hides the photo's surface in the frame is told by colour alone then, as everything is that the photo cannot know.

Either is steadied: single splats leave depth noisy, and a photo carried by it wobbles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.photometric import Floats, box, luma
from difix3d.fixers.target import HALVED, Source, Target, grown, nearest
from difix3d.types import Camera
from difix3d.warping import carry_with_depth, nearest_pixels

_STEADY_RADIUS_PX = 3
_STEADY_EDGE = 1e-2
"""Guided filter: brightness varying by less than this variance (10 % of white) is texture, not an edge in depth."""
_AGREED = 0.03
"""Share of depth up to which both mean the same surface."""
_SEEN_THROUGH = 0.5
"""Of the frame's depth: a surface nearer than that is one that the frame sees through."""


@dataclass(frozen=True)
class Surface:
    """[H, W] and [h, w], at the target's full size and the size that it is judged at; 0 where there is none."""

    depth: Floats
    small_depth: Floats


def surface_for(target: Target, source: Source) -> Surface:
    """What the photo `source` is carried by. A source without depth: the frame's own."""
    depth, own = target.depth, target.small_depth
    if source.small_depth is None:
        return _steadied(target, depth, own)
    seen = depth_from(target.small_camera, source.small_camera, source.small_depth)
    # What lies far before all that the frame shows would stand in it: it is the photo's depth that is wrong there.
    possible = seen > np.float32(_SEEN_THROUGH) * own
    small = np.where(possible & ~_confirmed(target, source, own), seen, own)
    for _ in range(2):  # crumbs between samples, what single splats do to depth; one reaches two pixels at most
        small = np.asarray(cv2.medianBlur(small, 5), dtype=np.float32)
    small = np.where(own > 0, small, np.float32(0.0))
    if target.pixel == 1:
        return _steadied(target, small, small)
    size = (target.camera.width, target.camera.height)
    replaced = (np.abs(small - own) > np.float32(_AGREED) * own).astype(np.uint8)
    large = cv2.resize(replaced, size, interpolation=cv2.INTER_NEAREST) > 0
    return _steadied(target, np.where(large, _grown(small, target.camera), depth), small)


def _grown(depth: Floats, camera: Camera) -> Floats:
    """Depth at the camera's size, without steps where a surface slants; across edges it is the nearest's."""
    steps = nearest(depth, camera)
    known = depth > 0
    inverse = grown(_inverse(depth, known), camera)
    same = np.abs(inverse * steps - np.float32(1.0)) <= np.float32(_AGREED)
    return np.where(same, 1 / np.where(same, inverse, np.float32(1.0)), steps)


def _inverse(depth: Floats, known: NDArray[np.bool_]) -> Floats:
    return np.where(known, 1 / np.where(known, depth, np.float32(1.0)), np.float32(0.0))


def _confirmed(target: Target, source: Source, depth: Floats) -> NDArray[np.bool_]:
    """[h, w]: where the photo has its surface where the frame's `depth` says that it lies. Asked in the photo: slanted
    surfaces seen from elsewhere are a little too near."""
    pixels, z, inside = carry_with_depth(source.small_camera, target.small_camera, depth)
    assert source.small_depth is not None
    there = nearest_pixels(source.small_depth, pixels)
    return inside & (np.abs(z - there) <= np.float32(_AGREED) * there)


def depth_from(target: Camera, reference: Camera, reference_depth: Floats) -> Floats:
    """[H, W]: the surface that `reference` has at `reference_depth` [h, w], as deep as `target` sees it; the nearest
    of what falls on one pixel, 0 where nothing does. Each sample covers the four pixels about it."""
    pixels, z, inside = carry_with_depth(target, reference, reference_depth)
    x, y = (np.floor(pixels[inside][:, axis] - np.float32(0.5)).astype(np.int64) for axis in (0, 1))
    z = z[inside]
    # A row and a column more at each side: samples next to the border cover some of it.
    found = np.full((target.height + 2, target.width + 2), np.inf, np.float32)
    flat, at = found.reshape(-1), (y + 1) * (target.width + 2) + x + 1
    for offset in (0, 1, target.width + 2, target.width + 3):
        np.minimum.at(flat, at + offset, z)
    return np.where(np.isfinite(found), found, np.float32(0.0))[1:-1, 1:-1]


def steady_depth(depth: Floats, alpha: Floats | None, rgb: Floats, pixel: float = 1.0) -> Floats:
    """[H, W]: depth without the noise of single splats, edges kept where the picture has them; 0 where there is none.

    Guided filter (He et al. 2013) of inverse depth, which is linear in the pixels of a plane, with the picture's
    brightness as guide; pixels without depth or with little alpha count little.
    """
    guide = luma(rgb)
    return _applied(depth, guide, *_filter(depth, alpha, guide, pixel))


def _steadied(target: Target, depth: Floats, small_depth: Floats) -> Surface:
    """`steady_depth` at full and small size, the filter made once, at small size (fast guided filter, He and Sun
    2015)."""
    if target.pixel == 1:
        steady = steady_depth(depth, target.small_alpha, target.render)
        return Surface(steady, steady)
    small_guide = luma(target.small_render)
    slope, intercept = _filter(small_depth, target.small_alpha, small_guide, HALVED)
    steady = _applied(depth, luma(target.render), grown(slope, target.camera), grown(intercept, target.camera))
    return Surface(steady, _applied(small_depth, small_guide, slope, intercept))


def _filter(depth: Floats, alpha: Floats | None, guide: Floats, pixel: float) -> tuple[Floats, Floats]:
    """(slope, intercept): inverse depth is about slope * guide + intercept."""
    known = depth > 0
    weight = np.where(known, 1.0 if alpha is None else alpha, 0.0).astype(np.float32) + np.float32(1e-4)
    inverse = _inverse(depth, known)
    radius = max(1, round(_STEADY_RADIUS_PX / pixel))
    total = box(weight, radius)

    def mean(values: Floats) -> Floats:
        return box(weight * values, radius) / total

    mean_guide, mean_inverse = mean(guide), mean(inverse)
    covariance = mean(guide * inverse) - mean_guide * mean_inverse
    variance = np.maximum(mean(guide * guide) - mean_guide * mean_guide, np.float32(0.0))
    slope = (covariance / (variance + _STEADY_EDGE)).astype(np.float32)
    return mean(slope), mean(mean_inverse - slope * mean_guide)


def _applied(depth: Floats, guide: Floats, slope: Floats, intercept: Floats) -> Floats:
    smooth = slope * guide + intercept
    found = (depth > 0) & (smooth > 1e-6)
    return np.where(found, 1 / np.maximum(smooth, np.float32(1e-6)), depth)
