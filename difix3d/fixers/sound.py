"""What fixers are given, made sound at the door: depth and alpha that are no numbers count as none, and what cannot be
a picture is refused in words. Behind it nothing has to ask again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import FixerError
from difix3d.types import Frame, Reference, require_shape

_FLAT = 1.0
"""Standard deviation, of 255, below which a photo is one colour: a lens cap, a frame lost on the way."""
_FARTHEST = 1e15
"""Squares of what is farther overflow; it counts as sky, of which no depth is known."""


def sound_frame(frame: Frame) -> Frame:
    """The frame with depth >= 0 and alpha in [0, 1], both finite.

    FixerError for a picture that is not bytes, ShapeError for maps that have not the camera's size.
    """
    shape = (frame.camera.height, frame.camera.width)
    _require_picture("frame.rgb", frame.rgb, shape)
    require_shape("frame.depth", frame.depth, shape)
    require_shape("frame.alpha", frame.alpha, shape)
    return replace(frame, alpha=np.clip(_finite(frame.alpha), 0.0, 1.0), depth=_depth(frame.depth))


def no_depth(frame: Frame, fixer: str) -> FixerError:
    """What to say where `fixer` carries photos by depth and the frame has none."""
    return FixerError(
        f"Frame {frame.index} of {frame.trajectory} has no depth, and {fixer} carries photos by depth. "
        "Render it from splats, put 00000_depth.npy files beside the renders, or choose the fixer difix."
    )


def sound_photos(references: Sequence[Reference]) -> list[Reference]:
    """The references, their depth as a frame's, without photos of a single colour, which agree with every plain wall.

    FixerError and ShapeError as for a frame.
    """
    import cv2  # not at the top: the command line's help comes by here

    photos = []
    for one in references:
        shape = (one.camera.height, one.camera.width)
        _require_picture(f"photo {one.name}", one.rgb, shape)
        if one.depth is not None:
            require_shape(f"depth of photo {one.name}", one.depth, shape)
            one = replace(one, depth=_depth(one.depth))
        if float(cv2.meanStdDev(one.rgb)[1].max()) >= _FLAT:
            photos.append(one)
    return photos


def _require_picture(what: str, rgb: NDArray, shape: tuple[int, int]) -> None:
    require_shape(what, rgb, (*shape, 3))
    if rgb.dtype != np.uint8:
        raise FixerError(f"{what}: expected uint8 from 0 to 255, got {rgb.dtype}")


def _depth(depth: NDArray) -> NDArray[np.float32]:
    finite = _finite(depth)
    return np.where((finite > 0) & (finite < _FARTHEST), finite, np.float32(0.0))


def _finite(values: NDArray) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 has no number for is infinite, and none
        values = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.float32(0.0))
