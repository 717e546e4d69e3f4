"""SIFT features into a COLMAP database, with progress; and what such a database holds."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray

from difix3d.events import Progress
from difix3d.sfm.background import Countdown, in_background
from difix3d.sfm.base import STAGE, Photo, PhotoSet, SfmSettings
from difix3d.sfm.pairs import vlad

# What COLMAP calls errors ("failed to create any sparse model") is told to a person in our words instead.
pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)


@dataclass(frozen=True)
class Detail:
    """How finely to look for features. 2,500 at 960 px register as much as COLMAP's 8,192 do, in half the time."""

    features: int = 2500
    long_side_px: int = 960
    first_octave: int = 0


FINE = Detail(features=4000, long_side_px=1200, first_octave=-1)
"""Three to five times slower: for captures that the normal detail leaves in pieces."""


def share_cameras(photos: tuple[Photo, ...]) -> list[list[Photo]]:
    """Groups that one lens took: same size, make, model and lens, and EXIF focals within 3 % (a zoom splits)."""
    groups: list[list[Photo]] = []
    for photo in photos:
        for group in groups:
            first = group[0]
            same_focal = _alike(first.focal_px, photo.focal_px) and _alike(first.zoomed_mm, photo.zoomed_mm)
            if same_focal and _kind(first) == _kind(photo):
                group.append(photo)
                break
        else:
            groups.append([photo])
    return groups


def _kind(photo: Photo) -> tuple[int, int, str, str]:
    return photo.width, photo.height, photo.camera, photo.lens


def _alike(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return abs(first / second - 1) < 0.03


def create_database(path: Path, photos: PhotoSet) -> None:
    """An empty database that knows the photos and one SIMPLE_RADIAL camera per lens, EXIF focals as priors."""
    pycolmap.Database.open(path).close()
    for group in share_cameras(photos.photos):
        options = pycolmap.ImageReaderOptions()
        options.camera_model = "SIMPLE_RADIAL"
        if focal := group[0].focal_px:
            options.camera_params = f"{focal},{group[0].width / 2},{group[0].height / 2},0"
        names = [photo.name for photo in group]
        pycolmap.import_images(path, photos.folder, pycolmap.CameraMode.SINGLE, names, options)


def extract(path: Path, photos: PhotoSet, detail: Detail, settings: SfmSettings) -> Generator[Progress, None, None]:
    """Find features in every photo of the database that has none."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = settings.thread_count
    options.max_image_size = detail.long_side_px
    options.sift.max_num_features = detail.features
    options.sift.first_octave = detail.first_octave
    token = pycolmap.CancellationToken()
    pace = Countdown(len(photos.photos))
    with open_database(path) as database:
        ids = [image.image_id for image in database.read_all_images()]
        done = in_background(
            lambda: pycolmap.extract_features(
                path,
                photos.folder,
                [photo.name for photo in photos.photos],
                camera_mode=pycolmap.CameraMode.AUTO,
                extraction_options=options,
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            ),
            lambda: sum(database.exists_keypoints(image_id) for image_id in ids),
            token.cancel,
        )
        for count in done:
            yield Progress(STAGE, "Finding features", count, pace.total, "photos", pace.left(count))


def features_per_photo(path: Path) -> NDArray[np.int64]:
    """[N] number of features of each photo, in the database's order."""
    with open_database(path) as database:
        counts = [database.num_keypoints_for_image(image.image_id) for image in database.read_all_images()]
    return np.array(counts, dtype=np.int64)


def exif_focals_px(path: Path) -> dict[int, float]:
    """Camera id -> its focal length by EXIF; cameras without one are not in it."""
    with open_database(path) as database:
        cameras = database.read_all_cameras()
    return {camera.camera_id: camera.focal_length for camera in cameras if camera.has_prior_focal_length}


def verified_pairs(path: Path) -> dict[tuple[str, str], int]:
    """(name, name) -> number of matches that fit one two-view geometry; pairs without any are not in it."""
    with open_database(path) as database:
        return pairs_of(database)


def pairs_of(database: pycolmap.Database) -> dict[tuple[str, str], int]:
    """`verified_pairs` of an open database."""
    names = {image.image_id: image.name for image in database.read_all_images()}
    pairs = {}
    for pair_id, inliers in zip(*database.read_two_view_geometry_num_inliers()):
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        pairs[(names[first], names[second])] = int(inliers)
    return pairs


def global_descriptors(path: Path, photos: PhotoSet, seed: int) -> NDArray[np.float32]:
    """[N, D] unit rows in the order of photos.photos: what each photo looks like as a whole (VLAD of its SIFT)."""
    with open_database(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        rows = [database.read_descriptors(ids[photo.name]).data for photo in photos.photos]
    return vlad([np.asarray(row, dtype=np.uint8).reshape(-1, 128) for row in rows], seed)


@contextmanager
def open_database(path: Path) -> Iterator[pycolmap.Database]:
    """COLMAP's own connection. Never Python's sqlite3 while COLMAP writes: two SQLite libraries in one process drop
    each other's file locks, which ended in a SIGBUS here."""
    database = pycolmap.Database.open(path)
    try:
        yield database
    finally:
        database.close()
