"""What photos are aligned to, and the photos: each at full size and at the size that it is judged at."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.photometric import Floats, box, luma
from difix3d.types import Camera, Frame, Reference, require_shape

_LARGE_PX, _HALVED = 320, 2.0
"""Frames with a side of so many pixels are judged at half size."""
_STEADY_RADIUS_PX = 3
_STEADY_EDGE = 1e-2
"""Guided filter: brightness varying by less than this variance (10 % of white) is texture, not an edge in depth."""


@dataclass(frozen=True)
class Target:
    """What is aligned to, at full size and at the size that it is judged at, whose pixels are `pixel` wide."""

    camera: Camera
    render: Floats
    depth: Floats
    pixel: float
    small_camera: Camera
    small_render: Floats
    small_depth: Floats
    small_alpha: Floats | None

    @classmethod
    def of(cls, frame: Frame) -> Target:
        """ShapeError for a picture or depth that has not the camera's size."""
        shape = (frame.camera.height, frame.camera.width)
        require_shape("frame.rgb", frame.rgb, (*shape, 3))
        require_shape("frame.depth", frame.depth, shape)
        render = frame.rgb.astype(np.float32) / np.float32(255.0)
        camera, alpha, pixel = frame.camera, frame.alpha, _pixel(frame.camera)
        if pixel == 1:
            depth = steady_depth(frame.depth, alpha, render)
            return cls(camera, render, depth, 1.0, camera, render, depth, alpha)
        small = smaller(camera, pixel)
        small_render = shrunk(render, small)
        small_alpha = None if alpha is None else shrunk(alpha, small)
        depth, small_depth = _steady_depths(frame.depth, render, camera, small_render, small_alpha, small)
        return cls(camera, render, depth, pixel, small, small_render, small_depth, small_alpha)


@dataclass(frozen=True)
class Source:
    """A photo to carry, no more than 1.5 times as fine as the target, so that a large one costs no more than it gives;
    and at the target's small size. small_depth: as the reference has it."""

    camera: Camera
    rgb: NDArray[np.uint8]
    small_camera: Camera
    small_rgb: NDArray[np.uint8]
    small_depth: Floats | None

    @classmethod
    def of(cls, target: Target, reference: Reference) -> Source:
        """ShapeError for a picture or depth that has not the camera's size."""
        camera, rgb, depth = reference.camera, reference.rgb, reference.depth
        require_shape("reference.rgb", rgb, (camera.height, camera.width, 3))
        if depth is not None:
            require_shape("reference.depth", depth, (camera.height, camera.width))
        scale = 1.5 * max(target.camera.width, target.camera.height) / max(camera.width, camera.height)
        if scale < 1:
            camera = camera.resized(round(scale * max(camera.width, camera.height)))
            rgb = shrunk(rgb, camera)
        small = smaller(camera, target.pixel)
        small_rgb = rgb if target.pixel == 1 else shrunk(rgb, small)
        return cls(camera, rgb, small, small_rgb, None if depth is None else nearest(depth, small))


def _pixel(camera: Camera) -> float:
    return _HALVED if max(camera.width, camera.height) >= _LARGE_PX else 1.0


def smaller(camera: Camera, pixel: float) -> Camera:
    return (
        camera if pixel == 1 else camera.sized(*(max(1, round(side / pixel)) for side in (camera.width, camera.height)))
    )


def shrunk(picture: NDArray, camera: Camera) -> NDArray:
    """Means, [h, w] or [h, w, C], of the camera's size and the picture's type."""
    return np.asarray(cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA))


def grown(picture: Floats, camera: Camera) -> Floats:
    size = (camera.width, camera.height)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def nearest(depth: Floats, camera: Camera) -> Floats:
    """Depth at the camera's size; never a mean, which would float between two surfaces."""
    size = (camera.width, camera.height)
    return np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)


def steady_depth(depth: Floats, alpha: Floats | None, rgb: Floats, pixel: float = 1.0) -> Floats:
    """[H, W]: depth without the noise of single splats, edges kept where the picture has them; 0 where there is none.

    Guided filter (He et al. 2013) of inverse depth, which is linear in the pixels of a plane, with the picture's
    brightness as guide; pixels without depth or with little alpha count little.
    """
    guide = luma(rgb)
    return _applied(depth, guide, *_filter(depth, alpha, guide, pixel))


def _steady_depths(
    depth: Floats, render: Floats, camera: Camera, small_render: Floats, small_alpha: Floats | None, small: Camera
) -> tuple[Floats, Floats]:
    """`steady_depth` at full and small size, the filter made once, at small size (fast guided filter, He and Sun
    2015)."""
    small_depth = nearest(depth, small)
    small_guide = luma(small_render)
    slope, intercept = _filter(small_depth, small_alpha, small_guide, _HALVED)
    steady = _applied(depth, luma(render), grown(slope, camera), grown(intercept, camera))
    return steady, _applied(small_depth, small_guide, slope, intercept)


def _filter(depth: Floats, alpha: Floats | None, guide: Floats, pixel: float) -> tuple[Floats, Floats]:
    """(slope, intercept): inverse depth is about slope * guide + intercept."""
    known = depth > 0
    weight = np.where(known, 1.0 if alpha is None else alpha, 0.0).astype(np.float32) + np.float32(1e-4)
    inverse = np.where(known, 1 / np.where(known, depth, 1.0), 0.0).astype(np.float32)
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
    return np.where(found, 1 / np.where(found, smooth, 1.0), depth).astype(np.float32)
