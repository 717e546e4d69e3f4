"""Carry a photo into another camera by that camera's depth, and say where to believe it.

Inverse warping: every target pixel looks up its colour in the photo, so there are no holes between samples, only
pixels that the photo cannot know. Three tests say which those are, as in multi-view stereo (MVSNet, Yao et al. 2018,
section 4.2); the weights are those of unstructured lumigraphs (Buehler et al. 2001, section 4).

Notation
    t, r        the target camera and the reference, the camera of the photo
    p_t, p_r    pixels, centre of the first one at (0.5, 0.5)
    d_t, d_r    depth along the optical axis, world units, 0 where there is none; z: the same of one point
    X           the point at p_t:    X = K_t^-1 (p_t, 1) d_t(p_t), in the target's camera axes
    p_r         where r sees X:      z_r (p_r, 1) = K_r (R X + c),  [R | c] = ref_from_target
    q_t         where t sees what r has at p_r: the round trip, by d_r(p_r)
    error_px    |q_t - p_t|: 0 where both depths mean the same point, large where either is wrong or X is hidden from r
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.types import Camera, require_shape

Floats = NDArray[np.float32]

MAX_DEPTH_DIFFERENCE = 0.25
"""Where z_r and d_r(p_r) differ by a larger share, r sees another surface: X is hidden from it, or floats."""
MAX_ERROR_PX = 24.0
"""Nor may the round trip miss by more. Depth rendered from quick fits is some percent off, and far cameras turn that
into many pixels; whoever blends has to look at the colours too."""
_DEPTH_DIFFERENCE, _ERROR_PX = 0.1, 8.0  # where confidence has fallen to exp(-1/2)
_ANGLE_DEG = 35.0
"""Between the two rays to X. Colours change with the view, and depth errors grow into shifts."""
_BLUR_RATIO = 1.0
"""A photo with less than so many pixels per target pixel is blurred there."""
_EDGE_SHARE = 0.3
"""Depth that changes by this share between neighbours: an edge, where rendered depth is a mean of both sides."""


@dataclass(frozen=True)
class Lookup:
    """Where each target pixel lies in the reference.

    p_r: [H, W, 2] float32 (x, y) pixels, finite everywhere. valid: [H, W] bool. confidence: [H, W] float32 in [0, 1],
    0 where not valid. density: [H, W] float32, pixels of the photo per pixel of the target along a side.
    """

    p_r: Floats
    valid: NDArray[np.bool_]
    confidence: Floats
    density: Floats


@dataclass(frozen=True)
class Warped:
    """A photo in the target camera. rgb: [H, W, 3] float32 in [0, 1], the photo's border where it does not reach."""

    rgb: Floats
    valid: NDArray[np.bool_]
    confidence: Floats


def warp_photo(
    rgb: NDArray[np.uint8],
    reference: Camera,
    target: Camera,
    target_depth: Floats,
    reference_depth: Floats | None = None,
    target_alpha: Floats | None = None,
) -> Warped:
    """The photo `rgb` [h, w, 3] of `reference` as `target` would see it; see `look_up` for the other arguments."""
    require_shape("rgb", rgb, (reference.height, reference.width, 3))
    lookup = look_up(reference, target, target_depth, reference_depth, target_alpha)
    return Warped(sample(rgb, lookup), lookup.valid, lookup.confidence)


def carry(reference: Camera, target: Camera, target_depth: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(p_r [H, W, 2], whether it lies in the reference's picture [H, W]) of the target's pixels; -1 where it does not.

    The first part of `look_up`: whether something else hides the point is not asked.
    """
    p_r, _, inside = carry_with_depth(reference, target, target_depth)
    return p_r, inside


def carry_with_depth(
    reference: Camera, target: Camera, target_depth: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """`carry`, and between its two how deep the point lies in the reference [H, W]."""
    d_t = np.asarray(target_depth, dtype=np.float32)
    x, y, z_r = _transfer(reference, target, *_pixel_grid(target), d_t)
    inside = (d_t > 0) & (z_r > 0) & (x >= 0) & (x <= reference.width) & (y >= 0) & (y <= reference.height)
    outside = ~inside
    for plane in (x, y):
        np.copyto(plane, np.float32(-1.0), where=outside)
    return merged(x, y), z_r, inside


def look_up(
    reference: Camera,
    target: Camera,
    target_depth: Floats,
    reference_depth: Floats | None = None,
    target_alpha: Floats | None = None,
    *,
    hiding_depth: Floats | None = None,
    pixel: float = 1.0,
) -> Lookup:
    """Where the target's pixels lie in the reference, whether they are seen from there, and how sure that is.

    target_depth, target_alpha: [H, W]; reference_depth: [h, w] at the reference camera. Without the reference's depth
    nothing tells what is hidden from it. hiding_depth: [h, w], asked for that alone where target_depth is too coarse
    for a round trip: only what lies well behind it has confidence 0. pixel: pixels of the picture in question that one
    of these stands for, where both cameras are those of smaller pictures: what is tolerated is measured in the former.
    ShapeError for a map that has not its camera's size.
    """
    require_shape("target_depth", target_depth, (target.height, target.width))
    d_t = np.asarray(target_depth, dtype=np.float32)
    p_r, z_r, valid = carry_with_depth(reference, target, d_t)

    sine_half, distance_ratio = _view_difference(reference, target, d_t)
    confidence = np.exp(-0.5 * np.square(sine_half / np.float32(np.sin(np.radians(_ANGLE_DEG) / 2))))
    scale = np.float32(np.sqrt(reference.K[0, 0] * reference.K[1, 1] / (target.K[0, 0] * target.K[1, 1])))
    density = scale * distance_ratio
    confidence *= np.clip(density / _BLUR_RATIO, 0.0, 1.0)
    confidence *= _away_from_edges(d_t)
    if target_alpha is not None:
        require_shape("target_alpha", target_alpha, (target.height, target.width))
        confidence *= np.clip(np.asarray(target_alpha, dtype=np.float32), 0.0, 1.0)
    if hiding_depth is not None:
        require_shape("hiding_depth", hiding_depth, (reference.height, reference.width))
        before = nearest_pixels(np.asarray(hiding_depth, dtype=np.float32), p_r)
        confidence *= (before <= 0) | (z_r <= np.float32(1 + MAX_DEPTH_DIFFERENCE) * before)
    if reference_depth is not None:
        require_shape("reference_depth", reference_depth, (reference.height, reference.width))
        reference_depth = np.asarray(reference_depth, dtype=np.float32)
        d_r = _sample_depth(reference_depth, p_r)
        confidence *= bilinear(_away_from_edges(reference_depth), p_r)  # a photo mixes colours there too
        x_q, y_q, z_t = _transfer(target, reference, p_r[..., 0], p_r[..., 1], d_r)
        x_t, y_t = _pixel_grid(target)
        # Capped far beyond what is valid, so that squares stay finite.
        error_px = np.minimum(np.float32(pixel) * np.hypot(x_q - x_t, y_q - y_t), np.float32(1e6))
        difference = np.minimum(np.abs(d_r - z_r) / np.maximum(z_r, np.float32(1e-12)), np.float32(1e6))
        valid &= (d_r > 0) & (z_t > 0) & (error_px <= MAX_ERROR_PX) & (difference <= MAX_DEPTH_DIFFERENCE)
        confidence *= np.exp(
            -0.5 * (np.square(error_px / np.float32(_ERROR_PX)) + np.square(difference / np.float32(_DEPTH_DIFFERENCE)))
        )
    confidence = np.where(valid, confidence, np.float32(0.0)).astype(np.float32)
    return Lookup(p_r, valid, confidence, density)


def sample(rgb: NDArray[np.uint8], lookup: Lookup) -> Floats:
    """`sample_bytes`, in [0, 1]."""
    return np.divide(sample_bytes(rgb, lookup), np.float32(255.0), dtype=np.float32)


def sample_bytes(rgb: NDArray[np.uint8], lookup: Lookup) -> NDArray[np.uint8]:
    """[H, W, 3]: the photo at lookup.p_r, bicubic. A photo with more pixels than the target asks for is averaged down
    first, so that fine detail does not turn into noise. 8 bits: as exact as the photo, and four times as fast as
    floats."""
    p_r = lookup.p_r
    some = (slice(None, None, 4),) * 2 if min(lookup.valid.shape) > 64 else ...  # enough for a middle
    seen = lookup.density[some][lookup.valid[some]]
    density = float(np.median(seen)) if seen.size else 1.0
    if density > 1.5:
        height, width = rgb.shape[:2]
        small_w, small_h = max(1, round(width / density)), max(1, round(height / density))
        rgb = np.asarray(cv2.resize(rgb, (small_w, small_h), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        p_r = p_r * np.array([small_w / width, small_h / height], np.float32)
    return _interpolated(rgb, p_r, cv2.INTER_CUBIC)


def bilinear(picture: NDArray, pixels: Floats) -> Floats:
    """`picture` [h, w] or [h, w, C] at `pixels` [H, W, 2], float32; beyond its border, the border."""
    return np.asarray(_interpolated(picture, pixels, cv2.INTER_LINEAR), dtype=np.float32)


def displaced(picture: Floats, flow: Floats) -> Floats:
    """[H, W] or [H, W, C]: what `picture` of that size has at each pixel + flow [H, W, 2], as `bilinear` tells it."""
    height, width = flow.shape[:2]
    x, y = cv2.split(flow)
    at = merged(x + np.arange(width, dtype=np.float32), y + np.arange(height, dtype=np.float32)[:, None])
    return np.asarray(_remapped(picture, at, cv2.INTER_LINEAR), dtype=np.float32)


def nearest_pixels(picture: NDArray, pixels: Floats) -> Floats:
    """As `bilinear`, but never a mean: of depth that would float between two surfaces."""
    return np.asarray(_interpolated(picture, pixels, cv2.INTER_NEAREST), dtype=np.float32)


def merged(*planes: NDArray) -> NDArray:
    """[H, W, C] of planes [H, W] and pictures [H, W, c] of one type; np.stack copies single numbers."""
    return np.asarray(cv2.merge(planes))


def _interpolated(picture: NDArray, pixels: Floats, interpolation: int) -> NDArray:
    return _remapped(picture, pixels - np.float32(0.5), interpolation)  # OpenCV counts from the first pixel's centre


def _remapped(picture: NDArray, at: Any, interpolation: int) -> NDArray:
    nothing: Any = None
    return np.asarray(cv2.remap(picture, at, nothing, interpolation, borderMode=cv2.BORDER_REPLICATE))


def _pixel_grid(camera: Camera) -> tuple[Floats, Floats]:
    """x [1, W] and y [H, 1] of the pixels' centres: what is linear in them is one sum over the picture."""
    x, y = np.arange(camera.width, dtype=np.float32) + 0.5, np.arange(camera.height, dtype=np.float32) + 0.5
    return x[None, :], y[:, None]


def _linear(row: NDArray, x: Floats, y: Floats) -> Floats:
    """row . (x, y, 1)"""
    a, b, c = (np.float32(value) for value in row)
    return (a * x + c) + b * y


def _transfer(camera: Camera, other: Camera, x: Floats, y: Floats, depth: Floats) -> tuple[Floats, Floats, Floats]:
    """(x, y, depth), each [H, W], in `camera` of the points at `depth` [H, W] behind the other's pixels (x, y)."""
    camera_from_other = camera.cam_from_world @ other.world_from_cam
    matrix = camera.K @ camera_from_other[:3, :3] @ np.linalg.inv(other.K)
    offset = (camera.K @ camera_from_other[:3, 3]).astype(np.float32)
    u, v, z = (_linear(row, x, y) for row in matrix)
    for plane, shift in zip((u, v, z), offset):  # in place: fetching memory takes longer than the sums
        plane *= depth
        plane += shift
    safe = np.where(z > 1e-12, z, np.float32(1.0))
    u /= safe
    v /= safe
    return u, v, z


def _view_difference(reference: Camera, target: Camera, depth: Floats) -> tuple[Floats, Floats]:
    """(sine of half the angle at X between the rays from both cameras, distance from t over distance from r)."""
    center_r = (target.cam_from_world @ reference.world_from_cam)[:3, 3]
    inverse = np.linalg.inv(target.K)
    x, y = _pixel_grid(target)
    # By |X|^2 and X . c alone; rays are 1 long along z.
    ray2 = np.square(_linear(inverse[0], x, y)) + np.square(_linear(inverse[1], x, y)) + np.float32(1.0)
    from_t2 = ray2 * np.square(depth)
    along = _linear(center_r @ inverse, x, y) * depth
    from_r2 = np.maximum(from_t2 - 2 * along + np.float32(center_r @ center_r), 0.0)
    from_t, from_r = np.sqrt(from_t2) + np.float32(1e-12), np.sqrt(from_r2) + np.float32(1e-12)
    cosine = (from_t2 - along) / (from_t * from_r)
    return np.sqrt(np.clip(0.5 - 0.5 * cosine, 0.0, 1.0)), from_t / from_r


def _sample_depth(depth: Floats, pixels: Floats) -> Floats:
    """[H, W] bilinear; 0 where any of the four neighbours has no depth."""
    sampled = bilinear(depth, pixels)
    empty = (depth <= 0).astype(np.float32)
    if empty.any():
        sampled = np.where(bilinear(empty, pixels) > 1e-6, np.float32(0.0), sampled)
    return sampled


def _away_from_edges(depth: Floats) -> Floats:
    """[H, W] in (0, 1]: low within a pixel of a depth edge. Slopes are no edges: only what bends is."""
    inverse = np.where(depth > 0, 1 / np.maximum(depth, np.float32(1e-12)), np.float32(0.0)).astype(np.float32)
    # Inverse depth is linear in the pixels of any plane, so its Laplacian is 0 on planes however steep.
    bend = np.abs(cv2.Laplacian(inverse, cv2.CV_32F, ksize=1, borderType=cv2.BORDER_REPLICATE))
    share = cv2.dilate(bend, np.ones((3, 3), np.uint8)) * depth
    return np.exp(-0.5 * np.square(share / np.float32(_EDGE_SHARE)))
