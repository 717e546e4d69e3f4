"""Cameras that somebody already has, from COLMAP or nerfstudio, brought to the photos of a capture.

Photos are found by the names that the person gave them: whole name, name without folders, name without suffix;
first the one that fits. Points come from the COLMAP model, or are triangulated from matches with the cameras held;
where they are few, more are looked for (refine.py), the cameras still held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray

from difix3d.errors import FormatError, ReconstructionError
from difix3d.events import Progress
from difix3d.sfm import features
from difix3d.sfm.background import Spent, in_background
from difix3d.sfm.base import (
    PHASES,
    STAGE,
    Photo,
    PhotoSet,
    Said,
    SfmResult,
    SfmSettings,
    needed_photos,
    require_enough_photos,
)
from difix3d.sfm.checks import SEEN_PER_PHOTO, require_features, seen_per_photo
from difix3d.sfm.matching import match
from difix3d.sfm.pairs import choose_pairs
from difix3d.sfm.pose_files import PosedFrame, find_poses, read_transforms
from difix3d.sfm.refine import POINTS, fill
from difix3d.sfm.undistort import undistort

SAME_SHAPE = 0.01
"""Relative difference of aspect ratios up to which a photo is the camera's picture, resized."""

FEW_PER_PHOTO = 300
"""Points for each photo that a fit wants to start from: models of features alone have 100 to 200."""


@dataclass(frozen=True)
class Shot:
    """A photo with its camera, at the photo's size. image_id: in the COLMAP model it is from, 0 where from none."""

    photo: Photo
    camera: pycolmap.Camera
    cam_from_world: NDArray[np.float64]
    image_id: int = 0


class KnownPosesBackend:
    """Cameras from SfmSettings.known_poses."""

    name = "known_poses"

    def reconstruct(self, photos: PhotoSet, workspace: Path, settings: SfmSettings) -> Generator[Said, None, SfmResult]:
        """See SfmBackend. figures: registered, photos, points, reprojection_px, focal_px, matcher, mapper
        ("known_poses"), points_from ("model" or "matches"); seconds_extract, _match, _map, _refine and _straighten."""
        require_enough_photos(photos)
        workspace.mkdir(parents=True, exist_ok=True)
        yield Progress(STAGE, "Reading poses", 0, 0)
        path = find_poses(settings.known_poses)
        source = _read_colmap(path) if path.is_dir() else None
        shots = _shots_of_model(path, source, photos) if source else _shots_of_transforms(path, photos)
        model = _posed(shots)
        if source:
            _take_points(model, source, shots)
        images_dir, sparse_dir = workspace / "undistorted", workspace / "sparse"
        spent = Spent(*PHASES)
        with spent("straighten"):
            yield from undistort(model, photos.folder, images_dir, sparse_dir, settings.thread_count)

        points_from = "model"
        if seen_per_photo(model) < SEEN_PER_PHOTO:
            points_from = "matches"
            straight = _straight_photos(model, photos, images_dir)
            model = yield from _triangulate(model, straight, workspace, sparse_dir, settings, spent)
            if (seen := seen_per_photo(model)) < SEEN_PER_PHOTO:
                raise ReconstructionError(
                    f"The photos and the given poses agree on only {seen} points in a typical photo; at least "
                    f"{SEEN_PER_PHOTO} are needed. The poses seem to belong to other photos, or to follow another "
                    "convention: "
                    f"{path.name} is read as {'COLMAP' if source else 'OpenGL camera-to-world'}."
                )
        if model.num_points3D() < min(POINTS // 2, FEW_PER_PHOTO * len(shots)):
            with spent("refine"):
                filled = yield from fill(model, images_dir, settings.thread_count)
            if filled is not None:
                model = filled
                model.write(sparse_dir)
        left_out = tuple(photo.name for photo in photos.photos if photo.name not in {s.photo.name for s in shots})
        figures = {
            "registered": len(shots),
            "photos": len(photos.photos),
            "points": model.num_points3D(),
            "reprojection_px": round(model.compute_mean_reprojection_error(), 3),
            "focal_px": round(float(np.median([shot.camera.mean_focal_length() for shot in shots])), 1),
            "matcher": "none" if points_from == "model" else "known_poses",
            "mapper": "known_poses",
            "points_from": points_from,
            **spent.figures,
        }
        return SfmResult(images_dir, sparse_dir, left_out, figures)


# Which photo is which


def match_names(given: Iterable[str], photos: PhotoSet) -> dict[str, Photo]:
    """name in the pose file -> photo. Of the ways to compare, the first by which any photo is found is used."""
    given = list(given)
    for key, name_of in _WAYS:
        by_key: dict[str, list[Photo]] = {}
        for photo in photos.photos:
            by_key.setdefault(key(name_of(photo)), []).append(photo)
        found: dict[str, Photo] = {}
        taken: set[str] = set()
        for name in given:
            candidates = by_key.get(key(name), [])
            if len(candidates) == 1 and candidates[0].name not in taken:
                found[name] = candidates[0]
                taken.add(candidates[0].name)
        if found:
            return found
    return {}


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _stem(name: str) -> str:
    return PurePosixPath(_last(name)).stem.casefold()


# The stored name comes last: a model made of the scene's own capture/ folder has those.
_WAYS: tuple[tuple[Callable[[str], str], Callable[[Photo], str]], ...] = (
    (_last, lambda photo: photo.source or photo.name),
    (_stem, lambda photo: photo.source or photo.name),
    (_last, lambda photo: photo.name),
)


def _require_enough(found: int, given: list[str], photos: PhotoSet) -> None:
    needed = needed_photos(len(photos.photos))
    if found >= needed:
        return
    ours = ", ".join(_last(photo.source or photo.name) for photo in photos.photos[:3])
    theirs = ", ".join(_last(name) for name in given[:3]) or "none"
    raise ReconstructionError(
        f"The poses name {found} of the {len(photos.photos)} photos; at least {needed} are needed. The photos are "
        f"called {ours}, ...; the poses are for {theirs}, .... Give the photos the names they have in the pose file."
    )


def _fitted(camera: pycolmap.Camera, photo: Photo) -> pycolmap.Camera:
    """`camera` for the photo's size. FormatError where the photo has another shape."""
    fitted = pycolmap.Camera(camera.todict())
    if (camera.width, camera.height) == (photo.width, photo.height):
        return fitted
    ratio = (camera.width / camera.height) / (photo.width / photo.height)
    if abs(ratio - 1) > SAME_SHAPE:
        raise FormatError(
            f"{photo.source or photo.name} is {photo.width}x{photo.height} pixels, its camera is for "
            f"{camera.width}x{camera.height}: a picture of another shape. Give the photos that the poses were made "
            "with, neither cropped nor turned."
        )
    fitted.rescale(photo.width, photo.height)
    return fitted


# COLMAP


def _read_colmap(folder: Path) -> pycolmap.Reconstruction:
    try:
        return pycolmap.Reconstruction(folder)
    except Exception as error:  # pycolmap raises what its C++ threw: ValueError, IndexError, RuntimeError...
        raise FormatError(
            f"{folder}: expected a COLMAP model, could not read it ({error}). Export it again."
        ) from error


def _shots_of_model(path: Path, model: pycolmap.Reconstruction, photos: PhotoSet) -> list[Shot]:
    images = {image.name: image for image in (model.image(image_id) for image_id in model.reg_image_ids())}
    found = match_names(images, photos)
    _require_enough(len(found), sorted(images), photos)
    return [
        Shot(
            photo,
            _fitted(model.camera(images[name].camera_id), photo),
            np.asarray(images[name].cam_from_world().matrix()),
            images[name].image_id,
        )
        for name, photo in sorted(found.items(), key=lambda item: item[1].name)
    ]


def _take_points(model: pycolmap.Reconstruction, source: pycolmap.Reconstruction, shots: list[Shot]) -> None:
    """The points of `source` that at least two of the shots see, with where they see them."""
    rows: dict[int, int] = {}
    observed: dict[int, list[list[float]]] = {}
    for row, shot in enumerate(shots, start=1):
        rows[shot.image_id] = row
        image = source.image(shot.image_id)
        camera = source.camera(image.camera_id)
        scale = (shot.camera.width / camera.width, shot.camera.height / camera.height)
        observed[row] = [[point.xy[0] * scale[0], point.xy[1] * scale[1]] for point in image.points2D]
    for row, keypoints in observed.items():
        points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array(xy)) for xy in keypoints])
        model.image(row).points2D = points2D
    for point_id in sorted(source.points3D):  # COLMAP keeps them in no order
        point = source.point3D(point_id)
        elements = [
            pycolmap.TrackElement(rows[element.image_id], element.point2D_idx)
            for element in point.track.elements
            if element.image_id in rows
        ]
        if len(elements) >= 2:
            model.add_point3D(point.xyz, pycolmap.Track(elements), point.color)


# nerfstudio


def _shots_of_transforms(path: Path, photos: PhotoSet) -> list[Shot]:
    frames = {frame.name: frame for frame in read_transforms(path)}
    found = match_names(frames, photos)
    _require_enough(len(found), sorted(frames), photos)
    return [
        Shot(photo, _fitted(_camera(frames[name], photo), photo), frames[name].cam_from_world[:3])
        for name, photo in sorted(found.items(), key=lambda item: item[1].name)
    ]


def _camera(frame: PosedFrame, photo: Photo) -> pycolmap.Camera:
    model, params = frame.model, frame.params
    width, height = frame.width or photo.width, frame.height or photo.height
    if model == "FOV_X":
        focal = 0.5 * width / math.tan(0.5 * params[0])
        model, params = "PINHOLE", (focal, focal, width / 2, height / 2)
    return pycolmap.Camera(model=model, width=width, height=height, params=list(params))


# A model of them


def _posed(shots: list[Shot]) -> pycolmap.Reconstruction:
    """A model without points. Image ids count from 1 in the order of `shots`; equal cameras are one."""
    model = pycolmap.Reconstruction()
    ids: dict[tuple, int] = {}
    for row, shot in enumerate(shots, start=1):
        camera = shot.camera
        lens = (camera.model, camera.width, camera.height, *camera.params)
        if lens not in ids:
            ids[lens] = camera.camera_id = len(ids) + 1
            model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=shot.photo.name, camera_id=ids[lens], image_id=row)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(shot.cam_from_world[:, :3]), shot.cam_from_world[:, 3])
        model.add_image_with_trivial_frame(image, pose)
    return model


def _straight_photos(model: pycolmap.Reconstruction, photos: PhotoSet, images_dir: Path) -> PhotoSet:
    by_name = {image.name: model.camera(image.camera_id) for image in model.images.values()}
    rows = tuple(
        replace(photo, width=by_name[photo.name].width, height=by_name[photo.name].height)
        for photo in photos.photos
        if photo.name in by_name
    )
    return PhotoSet(images_dir, rows, photos.ordered)


def _triangulate(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    workspace: Path,
    sparse_dir: Path,
    settings: SfmSettings,
    spent: Spent,
) -> Generator[Said, None, pycolmap.Reconstruction]:
    """Points where matches of the straight photos meet, the cameras held; written into sparse_dir too."""
    database = workspace / "database.db"
    pycolmap.Database.open(database).close()
    for camera_id, camera in model.cameras.items():
        options = pycolmap.ImageReaderOptions()
        options.camera_model = camera.model.name
        options.camera_params = ",".join(repr(float(value)) for value in camera.params)
        names = [image.name for image in model.images.values() if image.camera_id == camera_id]
        pycolmap.import_images(database, photos.folder, pycolmap.CameraMode.SINGLE, names, options)

    with spent("extract"):
        yield from features.extract(database, photos, features.Detail(), settings)
        require_features(features.features_per_photo(database))
    with spent("match"):
        _, pairs = choose_pairs(
            len(photos.photos),
            photos.ordered,
            settings.matching,
            lambda: features.global_descriptors(database, photos, settings.seed),
        )
        yield from match(database, photos, pairs, settings)

    triangulation = pycolmap.IncrementalPipelineOptions()
    triangulation.num_threads = settings.thread_count
    triangulation.random_seed = settings.seed
    token = pycolmap.CancellationToken()
    steps = in_background(
        lambda: pycolmap.triangulate_points(
            model, database, photos.folder, sparse_dir, options=triangulation, cancellation_token=token
        ),
        lambda: 0,
        token.cancel,
    )
    with spent("map"):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found = end.value
                break
            yield Progress(STAGE, "Triangulating points", 0, 0, "points")
    found.write(sparse_dir)
    return found
