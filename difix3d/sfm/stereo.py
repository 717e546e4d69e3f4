"""Depth of photos whose cameras are known, by sweeping planes: coarse, but of all that has some texture.

Each photo is compared with its neighbours warped onto planes parallel to it (Collins 1996), by normalised correlation,
the two best neighbours counting, so that one may be hidden. The cost volume is smoothed along the photo's own edges
(Rhemann et al. 2011), and a depth is believed where a neighbour's own depth says the same.

Pictures are [h, w] float32 in [0, 1], SIDE_PX long; pixel centres at (x + 0.5, y + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.geometry import project
from difix3d.types import Camera, Reconstruction
from difix3d.warping import carry_with_depth

Floats = NDArray[np.float32]

SIDE_PX = 192
"""More takes longer, and brought neither points nor better fits."""
NEIGHBOURS = 4
_PLANES = 48
_WINDOW, _SMOOTH_RADIUS = (5, 5), 4
_PLAIN = 2e-4
"""Variance of plain surfaces (1.4 % of white): they correlate with anything."""
_EDGE = 1e-3
"""Guided filter: variance from which a difference in brightness is an edge."""
_OUTSIDE = -0.2
"""The correlation of what a neighbour does not show: worse than chance, better than a contradiction."""
_NEAREST, _FARTHEST = 0.8, 2.0
"""Planes reach from so much of the depth of the nearest sparse points to so much of that of the farthest."""
_SURE, _SAME_DEPTH, _SAME_PLANES = 0.5, 0.03, 1.0
_SPECK_PX = 20
_SHARED_POINTS, _NARROW_DEG, _WIDE_DEG = 5, 10.0, 15.0
_FEWEST_POINTS = 8


@dataclass(frozen=True)
class Plan:
    """How a photo is swept. camera: of the small picture; neighbours: of the list of photos, those that see the same
    from a little aside, best first; near and far: the depths its planes lie between, world units."""

    camera: Camera
    neighbours: tuple[int, ...]
    near: float
    far: float

    @property
    def step(self) -> float:
        """Between two planes, in inverse depth."""
        return (1 / self.near - 1 / self.far) / (_PLANES - 1)

    def of(self, grey: NDArray[np.uint8]) -> Small:
        """grey: [H, W], the photo."""
        small = cv2.resize(grey, (self.camera.width, self.camera.height), interpolation=cv2.INTER_AREA)
        return Small(self.camera, self.neighbours, self.near, self.far, small.astype(np.float32) / np.float32(255))


@dataclass(frozen=True)
class Small(Plan):
    """A photo to sweep, small."""

    grey: Floats


def plans(reconstruction: Reconstruction) -> list[Plan | None]:
    """Of the reconstruction's views, in their order. None where too few points are seen."""
    found: list[Plan | None] = []
    weights = _affinity(reconstruction)
    for index, view in enumerate(reconstruction.views):
        camera = view.camera.resized(min(SIDE_PX, max(view.camera.width, view.camera.height)))
        _, z = project(camera, reconstruction.points[view.point_indices])
        z = z[z > 0]
        ranked = np.argsort(-weights[index], kind="stable")[:NEIGHBOURS]
        neighbours = tuple(int(other) for other in ranked if weights[index, other] >= 0)
        if len(z) < _FEWEST_POINTS or not neighbours:
            found.append(None)
            continue
        near, far = np.quantile(z, [0.01, 0.99]) * (_NEAREST, _FARTHEST)
        found.append(Plan(camera, neighbours, float(near), float(far)))
    return found


def _affinity(reconstruction: Reconstruction) -> NDArray[np.float64]:
    """[V, V] how well each two views go together: points that both see, weighted by the angle they see them under, of
    which some degrees are best. -1 where they share too few, and for a view and itself."""
    views, points = reconstruction.views, reconstruction.points
    rays = []
    for view in views:
        away = points[view.point_indices] - view.camera.position
        rays.append(away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12))
    weights = np.full((len(views), len(views)), -1.0)
    row_of = np.full(len(points), -1)
    for first, view in enumerate(views):
        row_of[view.point_indices] = np.arange(len(view.point_indices))
        for second in range(first + 1, len(views)):
            rows = row_of[views[second].point_indices]
            shared = rows >= 0
            if np.count_nonzero(shared) < _SHARED_POINTS:
                continue
            cosines = np.einsum("ij,ij->i", rays[first][rows[shared]], rays[second][shared])
            angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
            narrow = (np.minimum(angles, _NARROW_DEG) / _NARROW_DEG) ** 1.5
            wide = np.exp(-0.5 * (np.maximum(angles - _NARROW_DEG, 0) / _WIDE_DEG) ** 2)
            weights[first, second] = weights[second, first] = narrow @ wide
        row_of[view.point_indices] = -1
    return weights


def sweep(photo: Small, others: Sequence[Small]) -> tuple[Floats, Floats]:
    """(depth, score), both [h, w]: the plane where `photo` looks most like its neighbours `others`, and how alike the
    two are there, as a correlation."""
    grey = photo.grey
    mean, variance = _stats(grey)
    wide = (2 * _SMOOTH_RADIUS + 1,) * 2
    wide_mean = cv2.blur(grey, wide)
    wide_variance = np.maximum(cv2.blur(grey * grey, wide) - wide_mean * wide_mean, 0) + np.float32(_EDGE)
    homographies = [_to(photo.camera, other.camera) for other in others]
    inverses = np.linspace(1 / photo.far, 1 / photo.near, _PLANES)
    volume = np.empty((_PLANES, *grey.shape), np.float32)
    for plane, inverse in enumerate(inverses):
        best = second = np.full(grey.shape, np.float32(-1))
        for other, (turned, moved) in zip(others, homographies):
            score = _alike(grey, mean, variance, other.grey, turned + np.outer(moved, [0, 0, inverse]))
            second = np.maximum(second, np.minimum(best, score))
            best = np.maximum(best, score)
        scores = 0.5 * (best + second) if len(others) > 1 else best
        smooth = cv2.blur(scores, wide)
        slope = (cv2.blur(scores * grey, wide) - smooth * wide_mean) / wide_variance
        volume[plane] = cv2.blur(slope, wide) * grey + cv2.blur(smooth - slope * wide_mean, wide)
    return _peaks(volume, inverses)


def _to(photo: Camera, other: Camera) -> tuple[NDArray, NDArray]:
    """(M [3, 3], v [3]): the pixel (x, y, 1) on the plane at depth 1 / inverse is M (x, y, 1) + v inverse there, in
    OpenCV's pixels (first centre at 0)."""
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    other_from_photo = other.cam_from_world @ photo.world_from_cam
    back = np.linalg.inv(centre) @ other.K
    return back @ other_from_photo[:3, :3] @ np.linalg.inv(photo.K) @ centre, back @ other_from_photo[:3, 3]


def _stats(grey: Floats) -> tuple[Floats, Floats]:
    mean = np.asarray(cv2.blur(grey, _WINDOW), dtype=np.float32)
    return mean, np.maximum(cv2.blur(grey * grey, _WINDOW) - mean * mean, 0) + np.float32(_PLAIN)


def _alike(grey: Floats, mean: Floats, variance: Floats, other: Floats, homography: NDArray) -> Floats:
    """[h, w] normalised correlation with the other photo, warped."""
    height, width = grey.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = np.asarray(
        cv2.warpPerspective(other, homography, (width, height), flags=flags, borderValue=-1.0), dtype=np.float32
    )
    warped_mean, warped_variance = _stats(warped)
    covariance = cv2.blur(grey * warped, _WINDOW) - mean * warped_mean
    score = covariance / np.sqrt(variance * warped_variance)
    score[warped < 0] = _OUTSIDE
    return score


def _peaks(volume: Floats, inverses: NDArray) -> tuple[Floats, Floats]:
    """The best plane at each pixel, and its score; between planes by a parabola through the best and its two."""
    best = volume.argmax(axis=0)
    inner = np.clip(best, 1, len(volume) - 2)
    below, here, above = (np.take_along_axis(volume, (inner + step)[None], 0)[0] for step in (-1, 0, 1))
    bend = below - 2 * here + above
    offset = np.where((bend < -1e-6) & (inner == best), 0.5 * (below - above) / np.minimum(bend, -1e-6), 0.0)
    inverse = inverses[0] + (best + np.clip(offset, -0.5, 0.5)) * (inverses[1] - inverses[0])
    return (1 / inverse).astype(np.float32), np.take_along_axis(volume, best[None], 0)[0]


def believed(
    photo: Small, swept: tuple[Floats, Floats], others: Sequence[tuple[Small, tuple[Floats, Floats]]]
) -> Floats:
    """[h, w]: the depth where it is sure and at least one of `others`, photos and what `sweep` made of them, says the
    same; 0 elsewhere, and for specks."""
    depth, score = swept
    same = np.zeros(depth.shape, bool)
    for other, (other_depth, _) in others:
        pixels, there, inside = carry_with_depth(other.camera, photo.camera, depth)
        x, y = (np.clip(pixels[..., axis].astype(np.int64), 0, other_depth.shape[1 - axis] - 1) for axis in (0, 1))
        # In inverse depth, where planes are evenly spaced: far away, one of them is more than 3 %.
        inverse = 1 / np.where(inside, there, np.float32(1))
        apart = np.abs(1 / other_depth[y, x] - inverse)
        same |= inside & (apart < np.maximum(_SAME_DEPTH * inverse, _SAME_PLANES * other.step))
    good = (same & (score > _SURE)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(good, connectivity=4)
    good &= (stats[labels, cv2.CC_STAT_AREA] >= _SPECK_PX).astype(np.uint8)
    return np.where(good, depth, 0).astype(np.float32)
