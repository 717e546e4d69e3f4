"""Sharpen cameras and fill in points, once a sparse model stands; or only fill in points, where cameras are given.

Features found at the photos' own size are off by a third of a pixel, and there are few: fits of such cameras lose up to
a decibel. Looking at doubled photos mends both and takes five times as long. Instead: depth of every photo
(stereo.py), corners followed by it (tracks.py), what is far behind (far.py), and all of it adjusted together with the
features.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image

from difix3d.events import Progress
from difix3d.sfm.adjust import adjust
from difix3d.sfm.background import Countdown, in_background
from difix3d.sfm.base import STAGE
from difix3d.sfm.far import FarPoints, far_depths
from difix3d.sfm.opencv_threads import one_opencv_thread
from difix3d.sfm.snapshot import plain
from difix3d.sfm.stereo import believed, plans, sweep
from difix3d.sfm.tracks import Floats, Tracks, follow, joined
from difix3d.spread import evenly
from difix3d.types import Reconstruction

POINTS = 24_000
"""That are looked for in all photos together: what a fit starts from."""
_MOST_PER_PHOTO = 1500
_MOST_SWEPT = 24
"""Of more photos so many are swept, evenly spread; the others are neighbours of these, and few are left out."""
_MOST_FAR = 40
"""Of more photos so many are looked at for what is far behind: side by side they share less of it than of the
subject."""
_FEWEST_POINTS = 500
_OUTLIER_PX = 2.0
_ROUGH = 1e-3
"""Ends the first adjustment, which outliers are told by. Another follows, and it ends where it would have."""
_MUCH_BETTER = 0.95
"""A lens gets a second term of distortion where the error falls below this share: a phone's needed it, and with
fewer or coarser points it would be made up."""
_WORSE = 1.5
"""Features that fit so much less well afterwards say that something went wrong."""

Swept = dict[int, tuple[Floats, Floats]]


def refine(
    model: pycolmap.Reconstruction,
    straight: pycolmap.Reconstruction,
    images_dir: Path,
    hold_focal: bool,
    threads: int = 1,
) -> Generator[Progress, None, pycolmap.Reconstruction | None]:
    """`model` adjusted, lens distortion too, with more points. None where too little is found or nothing fits any
    better.

    straight: the model of the photos in images_dir, the same ones without distortion (undistort.py). hold_focal: leave
    focal lengths as they are. threads: photos at a time.
    """
    seen = yield from _look(straight, images_dir, threads, "Refining cameras")
    if seen is None or seen.sharp < _FEWEST_POINTS:
        return None
    refined = pycolmap.Reconstruction(model)
    features = set(model.points3D)
    sharp = features | set(_add(refined, straight, seen)[: seen.sharp])
    yield from adjust(refined, hold_focal, 12, _ROUGH)
    _drop_outliers(refined)
    bent = pycolmap.Reconstruction(refined)
    if _with_second_term(bent):
        yield from adjust(bent, hold_focal, 12)
    if _error_px(bent, sharp) < _MUCH_BETTER * _error_px(refined, sharp):
        refined = bent
    else:
        yield from adjust(refined, hold_focal, 8)
    _drop_outliers(refined)
    return refined if _error_px(refined, features) < _WORSE * _error_px(model, features) else None


def fill(
    straight: pycolmap.Reconstruction, images_dir: Path, threads: int = 1
) -> Generator[Progress, None, pycolmap.Reconstruction | None]:
    """`straight` with more points, its cameras and its own points as they are. None where too little is found.

    images_dir: its photos, without distortion. threads: photos at a time.
    """
    seen = yield from _look(straight, images_dir, threads, "Filling in points")
    if seen is None:
        return None
    filled = pycolmap.Reconstruction(straight)
    own = set(filled.points3D)
    _add(filled, straight, seen)
    yield from adjust(filled, True, 12, held_points=own)
    _drop_outliers(filled, own)
    return filled


@dataclass(frozen=True)
class _Seen:
    """names: of the photos that tracks count; colours: [P, 3] of their points, of which the first `sharp` are corners:
    the others are seen less exactly."""

    names: tuple[str, ...]
    tracks: Tracks
    sharp: int
    colours: NDArray[np.uint8]


def _look(
    straight: pycolmap.Reconstruction, images_dir: Path, threads: int, message: str
) -> Generator[Progress, None, _Seen | None]:
    """Points that the photos see beside those of `straight`. None where they are too few to be of use."""
    scene = plain(straight)
    names = tuple(view.name for view in scene.views)
    paths = [images_dir / name for name in names]
    corners, far = yield from _tracks(scene, paths, threads, message)
    tracks = joined([*corners, far])
    if len(tracks.points) < _FEWEST_POINTS:
        return None
    return _Seen(names, tracks, len(tracks.points) - len(far.points), _colours(tracks, paths, threads))


def _opened(path: Path, mode: str) -> NDArray[np.uint8]:
    """mode: "L" [H, W] or "RGB" [H, W, 3]."""
    with Image.open(path) as photo:
        photo.draft(mode, photo.size)  # where grey is asked for, no more of a JPEG is decoded
        return np.asarray(photo.convert(mode))


def _tracks(
    scene: Reconstruction, paths: Sequence[Path], threads: int, message: str
) -> Generator[Progress, None, tuple[list[Tracks], Tracks]]:
    """The corners of swept photos, and what photos show far behind. Only these and neighbours of swept ones are
    opened."""
    planned = {index: plan for index, plan in enumerate(plans(scene)) if plan is not None}
    chosen = evenly(list(planned), _MOST_SWEPT)
    far_from = far_depths(scene, {index: plan.neighbours for index, plan in planned.items()})
    looked_at = [] if far_from is None else evenly(list(planned), _MOST_FAR)
    far = FarPoints(scene, {index: far_from[index] for index in looked_at} if far_from else {})
    needed = sorted({*chosen, *looked_at, *(other for index in chosen for other in planned[index].neighbours)})
    with ThreadPoolExecutor(threads) as reading:
        greys = dict(zip(needed, reading.map(lambda index: _opened(paths[index], "L"), needed)))
    photos = {index: planned[index].of(grey) for index, grey in greys.items() if index in planned}
    cameras = [view.camera for view in scene.views]
    count = min(_MOST_PER_PHOTO, POINTS // max(1, len(chosen)))
    swept: Swept = {}
    depths: dict[int, Floats] = {}
    tracks: dict[int, Tracks] = {}

    def look(index: int) -> None:
        photo = photos[index]
        swept[index] = sweep(photo, [photos[other] for other in photo.neighbours if other in photos])

    def walk(index: int) -> None:
        photo = photos[index]
        others = [(photos[each], swept[each]) for each in photo.neighbours if each in swept]
        depths[index] = believed(photo, swept[index], others)
        tracks[index] = follow(index, cameras, greys, depths[index], photo.neighbours, count)

    def find(index: int) -> None:
        far.find(index, greys[index], depths.get(index))

    works = [(look, chosen), (walk, chosen), (find, looked_at), (far.compare, looked_at)]
    pace = Countdown(sum(len(indices) for _, indices in works))
    pool = ThreadPoolExecutor(threads)
    with one_opencv_thread() if threads > 1 else nullcontext():
        try:
            done = 0
            for work, indices in works:
                for future in as_completed([pool.submit(work, index) for index in indices]):
                    future.result()
                    done += 1
                    yield Progress(STAGE, message, done, pace.total, "photos", pace.left(done))
            found: list[Tracks] = []
            for _ in in_background(lambda: found.append(far.tracks()), lambda: 0):
                yield Progress(STAGE, message, done, pace.total, "photos", 0.0)
        finally:
            pool.shutdown(cancel_futures=True)
    return [tracks[index] for index in chosen], found[0]


def _add(model: pycolmap.Reconstruction, straight: pycolmap.Reconstruction, seen: _Seen) -> list[int]:
    """What was seen as points of the model, seen where its lenses have what `straight` has there; their ids, in their
    order."""
    tracks = seen.tracks
    image_ids, numbers = (np.empty(len(tracks.point), np.int64) for _ in range(2))
    for number in np.unique(tracks.photo):
        image, flat = (each.find_image_with_name(seen.names[number]) for each in (model, straight))
        rows = np.flatnonzero(tracks.photo == number)
        rays = np.asarray(straight.camera(flat.camera_id).cam_from_img(tracks.pixel[rows]))
        places = model.camera(image.camera_id).img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
        image_ids[rows], numbers[rows] = image.image_id, len(image.points2D) + np.arange(len(rows))
        image.points2D.extend(pycolmap.Image(keypoints=places).points2D)  # which loops in C++
    order = np.argsort(tracks.point, kind="stable")
    elements = [*map(pycolmap.TrackElement, image_ids[order].tolist(), numbers[order].tolist())]
    bounds = np.searchsorted(tracks.point[order], np.arange(len(tracks.points) + 1)).tolist()
    return [
        model.add_point3D(place, pycolmap.Track(elements[start:stop]), colour)
        for place, (start, stop), colour in zip(tracks.points, itertools.pairwise(bounds), seen.colours)
    ]


def _colours(tracks: Tracks, paths: Sequence[Path], threads: int) -> NDArray[np.uint8]:
    """[P, 3], in the photo each was found in; only `threads` photos are held at a time."""
    points, first = np.unique(tracks.point, return_index=True)
    colours = np.zeros((len(tracks.points), 3), np.uint8)

    def look(number: int) -> None:
        rows = tracks.photo[first] == number
        x, y = tracks.pixel[first[rows]].astype(np.int64).T
        colours[points[rows]] = _opened(paths[number], "RGB")[y, x]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(look, np.unique(tracks.photo[first])))
    return colours


def _drop_outliers(model: pycolmap.Reconstruction, but: Set[int] = frozenset()) -> None:
    errors = {point_id: point.error for point_id, point in model.points3D.items() if point_id not in but}
    for point_id in [point_id for point_id, error in errors.items() if error > _OUTLIER_PX]:
        model.delete_point3D(point_id)


def _with_second_term(model: pycolmap.Reconstruction) -> bool:
    """Give each lens a second term of distortion, 0 as yet; whether there was one to give it to."""
    simple = [camera for camera in model.cameras.values() if camera.model == pycolmap.CameraModelId.SIMPLE_RADIAL]
    for camera in simple:
        params = [*camera.params, 0.0]
        camera.model = pycolmap.CameraModelId.RADIAL
        camera.params = params
    return bool(simple)


def _error_px(model: pycolmap.Reconstruction, points: set[int] | None = None) -> float:
    """Mean reprojection error of these points (None: of all), of those of them that there are; infinite without any."""
    model.update_point_3d_errors()
    errors = [point.error for point_id, point in model.points3D.items() if points is None or point_id in points]
    return float(np.mean(errors)) if errors else float("inf")
