"""Points followed from photo to photo to a fraction of a pixel, by their depth and then by what is seen.

A photo's neighbour, warped into it by its depth, differs from it by a pixel or two, whatever the angle between them:
there the corners are found again by the method of Lucas and Kanade (1981), forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.types import Camera
from difix3d.warping import bilinear, carry

Floats = NDArray[np.float32]

_QUALITY = 0.003
"""Of a corner, as a share of the best one's."""
_WINDOW, _LEVELS = (13, 13), 1
_ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.01)
_MOST_PX, _RETURN_PX = 6.0, 0.3
"""A corner is found no further than this from where depth has it, and leads back to where it came from."""
_DIFFERENCE = 12.0
"""Mean absolute difference of both windows, of 255."""
_BORDER_PX = 4.0
_SEEN_BY = 2
"""Neighbours that must have found a corner, where there are so many."""


@dataclass(frozen=True)
class Tracks:
    """points: [P, 3] world, about; photo number photo[m] sees points[point[m]] at pixel[m] ([M], [M], [M, 2]), centre
    of the first pixel at (0.5, 0.5). A point's first row is that of the photo it was found in."""

    points: NDArray[np.float64]
    photo: NDArray[np.int64]
    point: NDArray[np.int64]
    pixel: NDArray[np.float64]

    @classmethod
    def none(cls) -> Tracks:
        return cls(np.empty((0, 3)), np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))

    def only(self, chosen: NDArray[np.bool_]) -> Tracks:
        """Those of the points that are `chosen`, [P]."""
        rows = chosen[self.point]
        place = np.cumsum(chosen) - 1
        return Tracks(self.points[chosen], self.photo[rows], place[self.point[rows]], self.pixel[rows])


def follow(
    index: int,
    cameras: Sequence[Camera],
    greys: Mapping[int, NDArray[np.uint8]],
    depth: Floats,
    neighbours: Sequence[int],
    count: int,
) -> Tracks:
    """Up to `count` corners of photo `index`, found again in its neighbours.

    cameras: of all photos; greys: [H, W] of this one and its neighbours at least, of their cameras' sizes; depth:
    [h, w] of this photo, smaller, 0 where unknown.
    """
    camera, grey = cameras[index], greys[index]
    height, width = grey.shape
    inner = cv2.erode((depth > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    known = cv2.resize(inner, (width, height), interpolation=cv2.INTER_NEAREST)
    spacing = max(2.0, 0.6 * float(np.sqrt(known.sum() / max(count, 1))))
    corners = cv2.goodFeaturesToTrack(grey, count, _QUALITY, spacing, mask=known)
    if corners is None:
        return Tracks.none()
    at = corners[:, 0].astype(np.float32)
    whole = _filled(depth)
    small = camera.sized(depth.shape[1], depth.shape[0])
    found: dict[int, tuple[NDArray[np.bool_], Floats]] = {}
    for other in neighbours:
        pixels, inside = (
            np.asarray(cv2.resize(each.astype(np.float32), (width, height)), dtype=np.float32)
            for each in carry(cameras[other], small, whole)
        )
        found[other] = _found(grey, greys[other], (known > 0) & (inside > 0.999), at, pixels)
    seen = np.sum([good for good, _ in found.values()], axis=0)
    rows = np.flatnonzero(seen >= max(1, min(_SEEN_BY, len(neighbours))))
    if not len(rows):
        return Tracks.none()
    place = np.full(len(at), -1)
    place[rows] = np.arange(len(rows))
    centres = at[rows] + np.float32(0.5)
    seen_at = [(index, np.arange(len(rows)), centres)]
    for other, (good, where) in found.items():
        kept = good & (place >= 0)
        seen_at.append((other, place[kept], where[kept]))
    z = bilinear(whole, (centres * (small.width / width, small.height / height))[None].astype(np.float32))[0]
    homogeneous = np.column_stack([centres, np.ones(len(centres))])
    local = homogeneous @ np.linalg.inv(camera.K).T * z[:, None]
    points = local @ camera.world_from_cam[:3, :3].T + camera.world_from_cam[:3, 3]
    photo = np.concatenate([np.full(len(each), number) for number, each, _ in seen_at])
    point, pixel = (np.concatenate([each[part] for each in seen_at]) for part in (1, 2))
    return Tracks(points, photo, point, pixel.astype(np.float64))


def joined(tracks: Sequence[Tracks]) -> Tracks:
    """All of them, one after the other."""
    tracks = [Tracks.none(), *tracks]
    points, photo, pixel = (
        np.concatenate([getattr(each, name) for each in tracks]) for name in ("points", "photo", "pixel")
    )
    first = np.cumsum([0, *(len(each.points) for each in tracks)])
    return Tracks(points, photo, np.concatenate([start + each.point for start, each in zip(first, tracks)]), pixel)


def _found(
    grey: NDArray[np.uint8], other: NDArray[np.uint8], shared: NDArray[np.bool_], at: Floats, pixels: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """(whether, where in the other photo) the corners `at` are found again; pixels: [H, W, 2], where depth has each
    pixel there; shared: [H, W], where it does and the other photo reaches."""
    if not shared.any():
        return np.zeros(len(at), bool), at
    x, y = (np.ascontiguousarray(pixels[..., axis] - np.float32(0.5)) for axis in (0, 1))
    warped = np.asarray(cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)
    warped = _same_exposure(warped, grey, shared)
    options: dict[str, Any] = {"winSize": _WINDOW, "maxLevel": _LEVELS, "criteria": _ENOUGH}
    options["flags"] = cv2.OPTFLOW_USE_INITIAL_FLOW
    there, ok, difference = cv2.calcOpticalFlowPyrLK(grey, warped, at, at.copy(), **options)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(warped, grey, there, at.copy(), **options)
    where = bilinear(pixels, there[None] + np.float32(0.5))[0]
    size = np.array([other.shape[1], other.shape[0]])
    good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (difference[:, 0] < _DIFFERENCE)
    good &= bilinear(shared.astype(np.float32), there[None] + np.float32(0.5))[0] > 0.999
    good &= np.linalg.norm(back - at, axis=1) < _RETURN_PX
    good &= np.linalg.norm(there - at, axis=1) < _MOST_PX
    good &= ((where > _BORDER_PX) & (where < size - _BORDER_PX)).all(axis=1)
    return good, where


def _same_exposure(photo: NDArray[np.uint8], like: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`photo` with the mean and spread of `like` there: the search takes a change of exposure for motion."""
    ours, theirs = photo[where], like[where]
    gain = float(np.clip(theirs.std() / max(float(ours.std()), 1.0), 0.5, 2.0))
    changed = cv2.convertScaleAbs(photo, alpha=gain, beta=float(theirs.mean() - gain * ours.mean()))
    return np.asarray(changed, dtype=np.uint8)


def _filled(depth: Floats) -> Floats:
    """Depth with its gaps closed by what is around them, nearest first."""
    weight = (depth > 0).astype(np.float32)
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float32)
    total = np.full(depth.shape, np.float32(inverse.sum() / max(float(weight.sum()), 1.0)))
    for sigma in (24.0, 6.0, 2.0):
        near = cv2.GaussianBlur(weight, (0, 0), sigma)
        mean = cv2.GaussianBlur(inverse, (0, 0), sigma) / np.maximum(near, np.float32(1e-6))
        total = np.where(near > 1e-2, mean, total)
    return (1 / np.where(weight > 0, inverse, total)).astype(np.float32)
