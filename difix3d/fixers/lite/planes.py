"""What the network looks at, as bytes: one picture of the frame and two of each photo carried to it, as exactly as the
depth allows (alignment.py) and in large patches (loose.py).

Bytes, and not floats, because training keeps thousands of these on disk and a 4,000-pixel frame has to fit into
memory; the network sees the same rounding in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.alignment import Aligned, align_photo, side_by_side
from difix3d.fixers.loose import PATCH_PX, carry_loosely, patch_depth
from difix3d.fixers.photometric import to_bytes
from difix3d.fixers.sound import sound_frame, sound_photos
from difix3d.fixers.surface import surface_for
from difix3d.fixers.target import Source, Target
from difix3d.types import Frame, Reference
from difix3d.warping import merged

FRAME_CHANNELS = ("red", "green", "blue", "alpha", "nearness")
"""nearness: the depth of the nearest surface over the depth here; 0 where nothing was hit."""
CARRIED_CHANNELS = ("red", "green", "blue", "geometry", "confidence")
"""As in alignment.Aligned; the render, believed nowhere, where nothing of the photo could be carried so."""
PHOTO_CHANNELS = (*CARRIED_CHANNELS, *(f"loose {name}" for name in CARRIED_CHANNELS))

_NEAREST_QUANTILE = 0.02

Bytes = NDArray[np.uint8]


def planes_of(frame: Frame, references: Sequence[Reference]) -> tuple[Bytes, Bytes]:
    """(frame [H, W, 5], photos [N, H, W, 10]) in the order of FRAME_CHANNELS and PHOTO_CHANNELS.

    N may be less than len(references): photos that show nothing of the frame are left out, all of them where the
    frame has no depth. Depth or alpha that is not a number counts as none. ShapeError for maps of other sizes.
    """
    frame = sound_frame(frame)
    shape = frame.depth.shape
    hit = frame.depth > 0
    nearness = np.zeros(shape, np.float32)
    photos: list[Bytes] = []
    if hit.any():
        depths = frame.depth[hit]
        rank = int(_NEAREST_QUANTILE * (len(depths) - 1))
        nearest = np.partition(depths, rank)[rank]  # np.quantile copies and interpolates
        np.divide(nearest, frame.depth, out=nearness, where=hit)  # more than 1 is 1 as a byte
        photos = _carried(frame, sound_photos(references))
    own = merged(frame.rgb, to_bytes(frame.alpha), to_bytes(nearness))
    return own, np.stack(photos) if photos else np.empty((0, *shape, len(PHOTO_CHANNELS)), np.uint8)


def _carried(frame: Frame, references: Sequence[Reference]) -> list[Bytes]:
    target = Target.of(frame)

    def both(reference: Reference) -> Bytes | None:
        source = Source.of(target, reference)
        surface = surface_for(target, source)
        patches = patch_depth(surface.small_depth, round(PATCH_PX / target.pixel))
        exact = align_photo(target, source, surface)
        loose = None if patches is None else carry_loosely(target, patches, source)
        if exact is None and loose is None:
            return None
        return merged(*(plane for photo in (exact, loose) for plane in _planes(photo, frame)))

    return [planes for planes in side_by_side(both, references) if planes is not None]


def _planes(photo: Aligned | None, frame: Frame) -> list[Bytes]:
    """CARRIED_CHANNELS, the first three in one."""
    if photo is None:
        nothing = np.zeros(frame.depth.shape, np.uint8)
        return [frame.rgb, nothing, nothing]
    return [photo.rgb, to_bytes(photo.geometry), to_bytes(photo.confidence)]
