"""Depth by plane sweep and corners followed by it, on a slanted wall whose place is known; cameras sharpened by both,
on the courtyard, whose true cameras are known."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from courtyard import disagreement, ingested, photo_paths, true_poses
from generators import returned

from difix3d.events import Progress
from difix3d.formats.colmap import read_reconstruction
from difix3d.geometry import project
from difix3d.sfm import colmap
from difix3d.sfm.base import PhotoSet, SfmSettings
from difix3d.sfm.refine import _tracks, refine
from difix3d.sfm.stereo import Small, believed, plans, sweep
from difix3d.sfm.tracks import follow, joined
from difix3d.sfm.undistort import undistort
from difix3d.stages.reconstruct import read_photos
from difix3d.types import Camera, Reconstruction, View

WIDTH, HEIGHT = 480, 320
NORMAL = np.array([0.3, 0.1, 1.0])
OFFSET = 4.0
"""The wall: NORMAL . X = OFFSET."""


def camera_at(x: float, y: float) -> Camera:
    cam_from_world = np.eye(4)
    cam_from_world[:3, 3] = [-x, -y, 0.0]
    return Camera(np.array([[420.0, 0, WIDTH / 2], [0, 420.0, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT, cam_from_world)


def wall_depth(camera: Camera, pixels: np.ndarray) -> np.ndarray:
    """[N] depth of the wall at pixels [N, 2]; cameras look along z."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.K).T
    return (OFFSET - NORMAL @ camera.position) / (rays @ NORMAL)


def photo_of_wall(camera: Camera, brightness: float = 1.0) -> np.ndarray:
    """[H, W] uint8: noise of many sizes, painted on the wall."""
    rng = np.random.default_rng(3)
    paint = sum(
        cv2.resize(rng.standard_normal((size, size)).astype(np.float32), (1024, 1024), interpolation=cv2.INTER_CUBIC)
        for size in (32, 128, 400)
    )
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.column_stack([x.ravel(), y.ravel()])
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.K).T
    world = rays * wall_depth(camera, pixels)[:, None] + camera.position
    at = ((world[:, :2] + 4.0) * 128.0).astype(np.float32).reshape(HEIGHT, WIDTH, 2)
    seen = cv2.remap(paint, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    return np.clip(brightness * (128 + 40 * seen), 0, 255).astype(np.uint8)


CAMERAS = [camera_at(x, y) for x, y in ((0, 0), (0.4, 0), (-0.4, 0.1), (0.1, 0.4))]
GREYS = {
    index: photo_of_wall(camera, brightness) for index, (camera, brightness) in enumerate(zip(CAMERAS, (1, 1, 0.8, 1)))
}


@pytest.fixture(scope="module")
def photos() -> list[Small]:
    pixels = np.random.default_rng(0).uniform((0, 0), (WIDTH, HEIGHT), (200, 2))
    rays = np.column_stack([pixels, np.ones(200)]) @ np.linalg.inv(CAMERAS[0].K).T
    points = rays * wall_depth(CAMERAS[0], pixels)[:, None]
    views = tuple(View(f"{index}.png", camera, None, np.arange(200)) for index, camera in enumerate(CAMERAS))
    found = plans(Reconstruction(views, points, np.zeros((200, 3), np.uint8)))
    return [plan.of(grey) for plan, grey in zip(found, GREYS.values()) if plan is not None]


@pytest.fixture(scope="module")
def depth(photos: list[Small]) -> np.ndarray:
    swept = [sweep(photo, [photos[other] for other in photo.neighbours]) for photo in photos]
    return believed(photos[0], swept[0], [(photos[other], swept[other]) for other in photos[0].neighbours])


def test_every_photo_has_the_others_as_neighbours(photos: list[Small]) -> None:
    assert [sorted(photo.neighbours) for photo in photos] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert all(photo.near < OFFSET < photo.far for photo in photos)


def test_swept_depth_is_the_walls(photos: list[Small], depth: np.ndarray) -> None:
    y, x = np.nonzero(depth)
    true = wall_depth(photos[0].camera, np.column_stack([x + 0.5, y + 0.5]))
    assert len(y) > 0.8 * depth.size
    assert np.quantile(np.abs(depth[y, x] / true - 1), [0.5, 0.95]) == pytest.approx(0, abs=0.02)


def test_noise_has_no_depth(photos: list[Small]) -> None:
    rng = np.random.default_rng(1)
    noise = [replace(each, grey=rng.random(each.grey.shape).astype(np.float32)) for each in photos]
    swept = [sweep(photo, [noise[other] for other in photo.neighbours]) for photo in noise]
    found = believed(noise[0], swept[0], [(noise[other], swept[other]) for other in noise[0].neighbours])
    assert (found > 0).mean() < 0.02


def test_corners_are_followed_to_a_fraction_of_a_pixel(depth: np.ndarray) -> None:
    tracks = follow(0, CAMERAS, GREYS, depth, (1, 2, 3), 300)
    assert len(tracks.points) > 150
    own = tracks.photo == 0
    start = tracks.pixel[own][np.argsort(tracks.point[own])]
    rays = np.column_stack([start, np.ones(len(start))]) @ np.linalg.inv(CAMERAS[0].K).T
    true = rays * wall_depth(CAMERAS[0], start)[:, None]
    for other in (1, 2, 3):
        rows = tracks.photo == other
        assert rows.sum() > 0.7 * len(start)
        where, _ = project(CAMERAS[other], true[tracks.point[rows]])
        away = np.linalg.norm(tracks.pixel[rows] - where, axis=1)
        assert np.median(away) < 0.1 and np.quantile(away, 0.95) < 0.4
    assert np.median(np.abs(tracks.points[:, 2] / true[:, 2] - 1)) < 0.02


def test_nothing_is_followed_where_there_is_no_depth(depth: np.ndarray) -> None:
    assert not len(follow(0, CAMERAS, GREYS, np.zeros_like(depth), (1, 2, 3), 300).points)


def test_corners_that_no_other_photo_shows_are_no_points(depth: np.ndarray) -> None:
    plain = {index: np.full_like(grey, 128) for index, grey in GREYS.items()}
    assert not len(follow(0, CAMERAS, {**plain, 0: GREYS[0]}, depth, (1, 2, 3), 300).points)
    assert not len(follow(0, CAMERAS, GREYS, depth, (), 300).points)


def test_joined_tracks_keep_their_points(depth: np.ndarray) -> None:
    one = follow(0, CAMERAS, GREYS, depth, (1, 2, 3), 100)
    both = joined([one, one])
    assert len(both.points) == 2 * len(one.points)
    np.testing.assert_array_equal(both.points[both.point], np.concatenate([one.points[one.point]] * 2))


def test_only_swept_photos_and_their_neighbours_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difix3d.sfm.refine._MOST_SWEPT", 4)
    cameras = [camera_at(0.15 * index, 0.1 * (index % 3)) for index in range(16)]
    points = np.random.default_rng(0).uniform((-2, -2, 0), (4, 2, 0), (600, 3))
    points[:, 2] = (OFFSET - points @ NORMAL) / NORMAL[2]
    views = []
    for index, camera in enumerate(cameras):
        pixels, z = project(camera, points)
        seen = (z > 0) & (pixels > 0).all(axis=1) & (pixels < (WIDTH, HEIGHT)).all(axis=1)
        views.append(View(f"{index:02}.png", camera, tmp_path / f"{index:02}.png", np.flatnonzero(seen)))
        cv2.imwrite(str(views[-1].image_path), photo_of_wall(camera))
    scene = Reconstruction(tuple(views), points, np.zeros((600, 3), np.uint8))
    paths = [view.image_path for view in views]
    before = joined(returned(_tracks(scene, paths, 2, ""))[0])
    needed = {index for swept in (0, 5, 10, 15) for index in (swept, *plans(scene)[swept].neighbours)}
    assert len(before.points) > 300 and set(before.photo.tolist()) <= needed
    for index in set(range(16)) - needed:
        paths[index].unlink()
    after = joined(returned(_tracks(scene, paths, 2, ""))[0])
    assert len(needed) < 16 and np.array_equal(before.pixel, after.pixel)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhotoSet, pycolmap.Reconstruction]:
    """Every second photo of the courtyard, and its cameras before they are refined."""
    folder = tmp_path_factory.mktemp("refine")
    photos = read_photos(ingested(folder / "scene", photo_paths(every=2)))
    seen: list[pycolmap.Reconstruction] = []

    def kept(model: pycolmap.Reconstruction, *_: Any) -> Any:
        seen.append(pycolmap.Reconstruction(model))
        return
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colmap, "refine", kept)
        returned(colmap.ColmapBackend().reconstruct(photos, folder, SfmSettings(threads=2)))
    return photos, seen[0]


def away(model: pycolmap.Reconstruction, photos: PhotoSet, folder: Path) -> tuple[float, float]:
    """How far a camera is from its true place, at most, over the cameras' extent; and its angle to the true one."""
    straight = pycolmap.Reconstruction(model)
    returned(undistort(straight, photos.folder, folder / "images", folder / "sparse"))
    views = read_reconstruction(folder / "sparse").views
    return disagreement({photos.source_of(view.name): view.camera for view in views}, true_poses())[:2]


@pytest.fixture
def straight(mapped: tuple[PhotoSet, pycolmap.Reconstruction], tmp_path: Path) -> pycolmap.Reconstruction:
    """The same cameras without distortion; their photos are in tmp_path / "images"."""
    photos, model = mapped
    copy = pycolmap.Reconstruction(model)
    returned(undistort(copy, photos.folder, tmp_path / "images", tmp_path / "sparse"))
    return copy


@pytest.mark.slow
def test_refined_cameras_are_nearer_to_the_truth(
    mapped: tuple[PhotoSet, pycolmap.Reconstruction], straight: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    photos, model = mapped
    count, error_px = model.num_points3D(), model.compute_mean_reprojection_error()
    refined = returned(refine(model, straight, tmp_path / "images", False, 2))
    assert (model.num_points3D(), model.compute_mean_reprojection_error()) == (count, error_px)
    assert refined.num_reg_images() == model.num_reg_images() and refined.num_points3D() > 3 * count
    before, after = (away(each, photos, tmp_path / name) for name, each in (("before", model), ("after", refined)))
    assert after[0] < before[0] and after[1] < 0.5 * before[1]
    colours = np.array([point.color for point in refined.points3D.values()])
    assert colours.std(axis=0).min() > 10


@pytest.mark.slow
def test_blank_photos_leave_the_cameras_as_they_are(
    mapped: tuple[PhotoSet, pycolmap.Reconstruction], straight: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    for path in (tmp_path / "images").iterdir():
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path)), 128))
    assert returned(refine(mapped[1], straight, tmp_path / "images", False)) is None


@pytest.mark.slow
def test_it_tells_how_far_it_is_and_stops_when_closed(
    mapped: tuple[PhotoSet, pycolmap.Reconstruction], straight: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    threads = threading.active_count()
    work = refine(mapped[1], straight, tmp_path / "images", False)
    first = next(work)
    assert isinstance(first, Progress) and first.total > first.done > 0
    assert threading.active_count() > threads
    started = time.monotonic()
    work.close()
    assert time.monotonic() - started < 2.0  # what cancelling a job promises
    assert threading.active_count() == threads
