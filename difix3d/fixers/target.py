"""What photos are aligned to, and the photos: each at full size and at the size that it is judged at."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.photometric import Floats
from difix3d.types import Camera, Frame, Reference, require_shape

_LARGE_PX, HALVED = 320, 2.0
"""Frames with a side of so many pixels are judged at half size."""


@dataclass(frozen=True)
class Target:
    """What is aligned to, at full size and at the size that it is judged at, whose pixels are `pixel` wide. depth: as
    it was rendered; what photos are carried by is surface.py's. render: rgb from 0 to 1."""

    camera: Camera
    rgb: NDArray[np.uint8]
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
            return cls(camera, frame.rgb, render, frame.depth, 1.0, camera, render, frame.depth, alpha)
        small = smaller(camera, pixel)
        small_alpha = None if alpha is None else shrunk(alpha, small)
        small_depth = nearest(frame.depth, small)
        small_render = shrunk(render, small)
        return cls(camera, frame.rgb, render, frame.depth, pixel, small, small_render, small_depth, small_alpha)


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
    return HALVED if max(camera.width, camera.height) >= _LARGE_PX else 1.0


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
