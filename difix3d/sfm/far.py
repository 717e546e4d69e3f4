"""Points far behind a subject: the buildings around a statue, the trees beyond a field.

Sweeping planes finds few of them. Photos taken around a subject turn much from one to the next, share little of what is
behind it, and see that far from where any one plane would put it. Features of the doubled picture are found again all
the same; and cameras stand already, so they are looked for only where no near depth is believed, and compared only
along epipolar lines, from behind the subject on. COLMAP triangulates what is seen under an angle that tells how far it
is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2  # before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from difix3d.geometry import project
from difix3d.sfm.tracks import Tracks
from difix3d.types import Camera, Reconstruction

Floats = NDArray[np.float32]

_BEHIND = 2.0
"""Far is what lies so many times deeper than half of the points that a photo sees."""
_SHARE = 0.05
"""Of a photo's points that are far, on average, for more to be looked for. Captures have much more or much less: a
background, or none."""
_TURNED_SHARE = 0.2
"""Of its field of view that a photo turns from its neighbours, at least: in less, as between frames of a video, swept
depth finds the background as well."""
_SIDE_PX = 720
"""Of the picture that is doubled. More takes longer, and brought hardly more points."""
_FEATURES, _LAYERS, _CONTRAST = 3000, 2, 0.013
_CLOSED_PX = 7
"""Gaps so wide between near depths are near as well; pixels of the swept picture."""
_PAIRED, _TURNED_DEG = 8, 40.0
"""A photo is compared with so many others at most: those that look nearest the same way, from nearby, and no more aside
than this;"""
_NARROWEST_DEG = 1.5
"""and none whose centres lie closer than this, seen from where things begin to be far: it tells no depth."""
_OFF_LINE, _OFF_POINT = 2 / 960, 3 / 960
"""How far from its epipolar line a feature may be found, of that photo's longer side; and from where its point is seen,
of the median photo's."""
_ALIKE, _CLEARLY = 0.8, 0.85
"""Product of both descriptors, at least; distance of the best one over that of the second, at most (Lowe 2004)."""
_TWIST_DEG, _GROWTH = 20.0, 1.4
"""By how much a feature's direction and size may differ from what turning the camera makes of them."""
_SURE = 3
"""So many photos are believed. Of what two agree about along a line, much is wrong:"""
_NEAREST, _AGREEING, _SAME_DEPTH = 8, 3, 0.1
"""it is believed where, of the points nearest to it in either photo, some are as deep, within this share."""


@dataclass(frozen=True)
class Features:
    """pixels: [F, 2], centre of the first at (0.5, 0.5); arrows: [F, 2], the direction of each, as long as its size in
    pixels; descriptors: [F, 128], of length 1."""

    pixels: NDArray[np.float64]
    arrows: NDArray[np.float64]
    descriptors: Floats

    @classmethod
    def none(cls) -> Features:
        return cls(np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 128), np.float32))


def far_depths(scene: Reconstruction, neighbours: Mapping[int, Sequence[int]]) -> list[float] | None:
    """From where on things are far, for each view, world units. None where hardly anything is: where there is no
    background, there is none to be found; nor where it need not be looked for.

    neighbours: those that views are swept with.
    """
    if not neighbours or np.median([_turned(scene, *each) for each in neighbours.items()]) < _TURNED_SHARE:
        return None
    depths, shares = [], []
    for view in scene.views:
        _, z = project(view.camera, scene.points[view.point_indices])
        depths.append(_BEHIND * float(np.median(z)) if len(z) else np.inf)
        shares.append(float(np.mean(z > depths[-1])) if len(z) else 0.0)
    return depths if np.mean(shares) >= _SHARE else None


def _turned(scene: Reconstruction, index: int, neighbours: Sequence[int]) -> float:
    """By what share of its field of view, along its longer side, a view is turned from its neighbours, on average."""
    camera, *others = (scene.views[each].camera for each in (index, *neighbours))
    field_deg = np.degrees(2 * np.arctan(max(camera.width, camera.height) / (2 * camera.K[0, 0])))
    return float(_turned_deg([camera, *others])[0, 1:].mean() / field_deg)


def _turned_deg(cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """[N, N] between each two optical axes."""
    ahead = np.array([camera.world_from_cam[:3, 2] for camera in cameras]).reshape(-1, 3)
    return np.degrees(np.arccos(np.clip(ahead @ ahead.T, -1, 1)))


class FarPoints:
    """What some photos show far away: first `find` for each of them, then `compare`, then `tracks`. Calls of one kind
    may come from several threads."""

    def __init__(self, scene: Reconstruction, depths: Mapping[int, float]):
        """depths: from where on things are far, of those of the scene's views that are to be looked at."""
        self._cameras = [view.camera for view in scene.views]
        self._depths = depths
        self._features: dict[int, Features] = {}
        self._pairs = _pairs({index: self._cameras[index] for index in depths}, depths)
        self._matches: dict[tuple[int, int], NDArray[np.uint32]] = {}

    def find(self, index: int, grey: NDArray[np.uint8], depth: Floats | None) -> None:
        """Features of photo `index`, [H, W], wherever its depth [h, w] is not near: 0, or None, where unknown."""
        if depth is None:
            depth = np.zeros((1, 1), np.float32)
        near = ((depth > 0) & (depth < self._depths[index])).astype(np.uint8)
        closed = np.asarray(cv2.morphologyEx(near, cv2.MORPH_CLOSE, np.ones((_CLOSED_PX, _CLOSED_PX), np.uint8)))
        self._features[index] = _features(grey, closed == 0)

    def compare(self, index: int) -> None:
        """Photo `index` with those that it is paired with, once all have features."""
        for pair in self._pairs:
            if pair[0] == index:
                self._matches[pair] = _matches(
                    *((self._cameras[each], self._depths[each], self._features[each]) for each in pair)
                )

    def tracks(self) -> Tracks:
        """The points that at least three photos show, or two that have others beside them."""
        model, graph = pycolmap.Reconstruction(), pycolmap.CorrespondenceGraph()
        # A place with two directions is two features, and would be two points that agree with each other.
        place_of = {}
        for index, found in sorted(self._features.items()):
            places, place_of[index] = np.unique(found.pixels, axis=0, return_inverse=True)
            _add_photo(model, index, self._cameras[index], places)
            graph.add_image(index + 1, len(places))
        for (first, second), rows in sorted(self._matches.items()):
            if len(rows):
                rows = np.column_stack([place_of[first][rows[:, 0]], place_of[second][rows[:, 1]]])
                rows = np.unique(rows, axis=0).astype(np.uint32)
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
                geometry.inlier_matches = rows
                graph.add_two_view_geometry(first + 1, second + 1, geometry)
        graph.finalize()
        off_px = _OFF_POINT * float(np.median([max(each.width, each.height) for each in self._cameras]))
        options = pycolmap.IncrementalTriangulatorOptions()
        options.random_seed = 0
        options.ignore_two_view_tracks = False
        options.min_angle = _NARROWEST_DEG
        options.merge_max_reproj_error = options.complete_max_reproj_error = off_px
        focal_px = float(np.median([each.K[0, 0] for each in self._cameras]))
        options.create_max_angle_error = options.continue_max_angle_error = float(np.degrees(off_px / focal_px))
        triangulator = pycolmap.IncrementalTriangulator(graph, model)
        for image_id in sorted(model.reg_image_ids()):
            triangulator.triangulate_image(options, image_id)
        triangulator.complete_all_tracks(options)
        triangulator.merge_all_tracks(options)
        tracks = _tracks_of(model, off_px)
        return tracks.only(_believed(tracks, self._cameras))


def _pairs(cameras: dict[int, Camera], depths: Mapping[int, float]) -> list[tuple[int, int]]:
    """Of these, which look much the same way at what is far."""
    indices = list(cameras)
    turned_deg = _turned_deg([*cameras.values()])
    centres = np.array([camera.position for camera in cameras.values()]).reshape(-1, 3)
    far = np.array([depths[index] for index in indices])
    apart = np.linalg.norm(centres[:, None] - centres, axis=2) / np.minimum(far[:, None], far)
    apart_deg = np.degrees(np.arctan(apart))
    cost = np.where((turned_deg <= _TURNED_DEG) & (apart_deg >= _NARROWEST_DEG), turned_deg + apart_deg, np.inf)
    np.fill_diagonal(cost, np.inf)
    pairs = set()
    for row, index in enumerate(indices):
        for other in np.argsort(cost[row], kind="stable")[:_PAIRED]:
            if np.isfinite(cost[row, other]):
                pairs.add((min(index, indices[other]), max(index, indices[other])))
    return sorted(pairs)


def _features(grey: NDArray[np.uint8], where: NDArray[np.bool_]) -> Features:
    """Of the doubled picture, the strongest of those that lie `where` [h, w], smaller, is true. Descriptors as square
    roots, whose product says more than their own (Arandjelovic and Zisserman 2012)."""
    camera_size = np.array([grey.shape[1], grey.shape[0]])
    shrink = min(1.0, _SIDE_PX / max(grey.shape))
    size = tuple(max(1, round(shrink * side)) for side in camera_size)
    if shrink < 1:
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    mask = cv2.resize(where.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    # Of its own accord it doubles with a shift of a quarter of a pixel, and chooses the strongest before it masks.
    sift = cv2.SIFT.create(nOctaveLayers=_LAYERS, contrastThreshold=_CONTRAST, enable_precise_upscale=True)
    strongest = sorted(sift.detect(grey, mask), key=lambda point: -point.response)[:_FEATURES]
    points, descriptors = sift.compute(grey, strongest)
    if not points:
        return Features.none()
    scale = camera_size / size
    pixels = (np.array([point.pt for point in points]) + 0.5) * scale
    angles = np.radians([point.angle for point in points])
    arrows = np.column_stack([np.cos(angles), np.sin(angles)]) * [[point.size] for point in points] * scale
    share = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return Features(pixels, arrows, np.sqrt(share, dtype=np.float32))


_Seen = tuple[Camera, float, Features]


def _matches(first: _Seen, second: _Seen) -> NDArray[np.uint32]:
    """[M, 2] rows of features that are each other's best, clearly, among those that can be the same far point."""
    (camera, depth, ours), (other, other_depth, theirs) = first, second
    none = np.empty((0, 2), np.uint32)
    if not len(ours.pixels) or not len(theirs.pixels):
        return none
    rows, columns = _possible(camera, ours, depth, other, theirs, other_depth)
    alike = np.einsum("ij,ij->i", ours.descriptors[rows], theirs.descriptors[columns])
    good = alike > _ALIKE
    for group in (rows, columns):
        good &= _clear_best(group, alike)
    return np.column_stack([rows[good], columns[good]]).astype(np.uint32)


def _possible(
    camera: Camera, ours: Features, depth: float, other: Camera, theirs: Features, other_depth: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows, columns): which of our features [F] and theirs [G] may show one point beyond both depths.

    The point at pixel x and depth 1 / w lies at turned x + w moved in the other photo, which is a line in w; what is
    far away is turned and resized there as a picture at infinity would be.
    """
    pixels, other_pixels = ours.pixels, theirs.pixels
    other_from_camera = other.cam_from_world @ camera.world_from_cam
    infinite = other.K @ other_from_camera[:3, :3] @ np.linalg.inv(camera.K)
    turned = np.column_stack([pixels, np.ones(len(pixels))]) @ infinite.T
    tips = np.column_stack([pixels + ours.arrows, np.ones(len(pixels))]) @ infinite.T
    arrows = tips[:, :2] / tips[:, 2:] - turned[:, :2] / turned[:, 2:]
    moved = other.K @ other_from_camera[:3, 3]
    lines = np.cross(turned, moved)
    lines /= np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
    homogeneous = np.column_stack([other_pixels, np.ones(len(other_pixels))])
    off_px = _OFF_LINE * max(other.width, other.height)
    away = lines.astype(np.float32) @ homogeneous.T.astype(np.float32)
    rows, columns = np.divmod(np.flatnonzero(np.abs(away, out=away) < off_px), len(other_pixels))  # faster than nonzero
    # Where on the line: the w whose pixel is about the nearest.
    along = moved[:2] - other_pixels[columns] * moved[2]
    missed = turned[rows, :2] - other_pixels[columns] * turned[rows, 2:]
    w = -np.einsum("ij,ij->i", missed, along) / np.maximum(np.einsum("ij,ij->i", along, along), 1e-12)
    there = turned[rows, 2] + w * moved[2]  # the other photo's depth, times w
    far = (w > 0) & (w * depth < 1) & (there > w * other_depth)
    rows, columns, there = rows[far], columns[far], there[far]
    ratio = _complex(theirs.arrows)[columns] / (_complex(arrows)[rows] * (turned[rows, 2] / there))
    same = (np.abs(np.angle(ratio)) < np.radians(_TWIST_DEG)) & (np.abs(np.log(np.abs(ratio))) < np.log(_GROWTH))
    return rows[same], columns[same]


def _complex(arrows: NDArray[np.float64]) -> NDArray[np.complex128]:
    return arrows[:, 0] + 1j * arrows[:, 1]


def _clear_best(group: NDArray[np.int64], alike: Floats) -> NDArray[np.bool_]:
    """[N] whether each is the most alike of its group, by far."""
    if not len(group):
        return np.zeros(0, bool)
    order = np.argsort(group, kind="stable")
    ranked = alike[order]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    lengths = np.diff([*starts, len(group)])
    best = np.repeat(np.maximum.reduceat(ranked, starts), lengths)
    is_best = ranked == best
    others = np.where(is_best, np.float32(-1), ranked)
    second = np.repeat(np.maximum.reduceat(others, starts), lengths)
    alone = np.repeat(np.add.reduceat(is_best.astype(np.int64), starts), lengths) == 1
    # Of unit vectors, the squared distance is 2 - 2 times their product.
    clear = (1 - ranked) < _CLEARLY**2 * (1 - second)
    good = np.empty(len(group), bool)
    good[order] = is_best & alone & clear
    return good


def _add_photo(model: pycolmap.Reconstruction, index: int, camera: Camera, pixels: NDArray[np.float64]) -> None:
    """With image and camera id index + 1."""
    params = [camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]]
    number = index + 1
    lens = pycolmap.Camera(model="PINHOLE", width=camera.width, height=camera.height, params=params, camera_id=number)
    model.add_camera_with_trivial_rig(lens)
    image = pycolmap.Image(str(number), pixels, number, number)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera.cam_from_world[:3]))


def _tracks_of(model: pycolmap.Reconstruction, off_px: float) -> Tracks:
    """The model's points that lie where they are seen."""
    model.update_point_3d_errors()
    points: list[NDArray[np.float64]] = []
    seen: list[tuple[int, int, int]] = []
    for _, point in sorted(model.points3D.items()):
        places = {each.image_id: each.point2D_idx for each in reversed(point.track.elements)}  # one in each photo
        if len(places) >= 2 and point.error < off_px:
            seen += [(len(points), image_id - 1, place) for image_id, place in sorted(places.items())]
            points.append(point.xyz)
    if not points:
        return Tracks.none()
    rows, photos, places = np.array(seen, dtype=np.int64).T
    pixels = [model.image(index + 1).points2D[place].xy for _, index, place in seen]
    return Tracks(np.array(points), photos, rows, np.array(pixels))


def _believed(tracks: Tracks, cameras: Sequence[Camera]) -> NDArray[np.bool_]:
    """[P] whether each point is sure, or in keeping with what is around it in every photo that shows it."""
    agreeing = np.full(len(tracks.points), _NEAREST)
    for index in np.unique(tracks.photo):
        rows = np.flatnonzero(tracks.photo == index)
        _, z = project(cameras[index], tracks.points[tracks.point[rows]])
        count = min(_NEAREST + 1, len(rows))
        _, nearest = cKDTree(tracks.pixel[rows]).query(tracks.pixel[rows], count)
        nearest = nearest.reshape(len(rows), count)
        same = (np.abs(z[nearest] / z[:, None] - 1) < _SAME_DEPTH).sum(axis=1) - 1  # but itself
        np.minimum.at(agreeing, tracks.point[rows], same)
    return (np.bincount(tracks.point, minlength=len(tracks.points)) >= _SURE) | (agreeing >= _AGREEING)
