"""What the network looks at, as bytes: one picture of the frame and one of each photo carried to it.

Bytes, and not floats, because training keeps thousands of these on disk and a 4,000-pixel frame has to fit into
memory; the network sees the same rounding in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.alignment import align_photos
from difix3d.fixers.sound import sound_frame, sound_photos
from difix3d.types import Frame, Reference

FRAME_CHANNELS = ("red", "green", "blue", "alpha", "nearness")
"""nearness: the depth of the nearest surface over the depth here; 0 where nothing was hit."""
PHOTO_CHANNELS = ("red", "green", "blue", "geometry", "confidence")
"""As in alignment.Aligned."""

_NEAREST_QUANTILE = 0.02

Bytes = NDArray[np.uint8]


def planes_of(frame: Frame, references: Sequence[Reference]) -> tuple[Bytes, Bytes]:
    """(frame [H, W, 5], photos [N, H, W, 5]) in the order of FRAME_CHANNELS and PHOTO_CHANNELS.

    N may be less than len(references): photos that show nothing of the frame are left out, all of them where the
    frame has no depth. Depth or alpha that is not a number counts as none. ShapeError for maps of other sizes.
    """
    frame = sound_frame(frame)
    shape = frame.depth.shape
    hit = frame.depth > 0
    nearness = np.zeros(shape, np.float32)
    aligned = []
    if hit.any():
        nearest = np.quantile(frame.depth[hit], _NEAREST_QUANTILE)
        nearness[hit] = np.minimum(nearest / frame.depth[hit], 1.0)
        aligned = align_photos(frame, sound_photos(references))
    own = np.dstack([frame.rgb, _bytes(frame.alpha), _bytes(nearness)])
    photos = np.empty((len(aligned), *shape, len(PHOTO_CHANNELS)), np.uint8)
    for planes, photo in zip(photos, aligned):
        planes[..., :3] = _bytes(photo.rgb)
        planes[..., 3], planes[..., 4] = _bytes(photo.geometry), _bytes(photo.confidence)
    return own, photos


def _bytes(values: NDArray[np.float32]) -> Bytes:
    return (np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
