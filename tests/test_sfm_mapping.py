"""What is judged about a model: starved photos, a focal length that left its prior, flat ground seen from above."""

from __future__ import annotations

from pathlib import Path

import cv2  # noqa: F401  before pycolmap, as everywhere
import numpy as np
import pycolmap
import pytest
from generators import returned

from difix3d.geometry import look_at
from difix3d.sfm import flat
from difix3d.sfm.base import Photo, PhotoSet
from difix3d.sfm.checks import seen_per_photo
from difix3d.sfm.mapping import (
    MIN_SEEN,
    Model,
    better,
    closer,
    drop_starved,
    focal_drift,
    focal_px,
)
from difix3d.sfm.snapshot import plain

K = np.array([[800.0, 0, 480], [0, 800, 320], [0, 0, 1]])


LENSES = {"PINHOLE": [800, 800, 480, 320], "SIMPLE_RADIAL": [800, 480, 320, -0.1]}


def model_of(
    poses: list[np.ndarray],
    points: np.ndarray,
    seen: dict[int, int] | None = None,
    lens: str = "PINHOLE",
    cameras: int = 1,
) -> Model:
    """Photo `row` sees all points, or the first seen[row], through one of the cameras, which take turns."""
    model = pycolmap.Reconstruction()
    for camera_id in range(1, cameras + 1):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(camera_id=camera_id, model=lens, width=960, height=640, params=LENSES[lens])
        )
    tracks: list[list[pycolmap.TrackElement]] = [[] for _ in points]
    for row, pose in enumerate(poses):
        count = (seen or {}).get(row, len(points))
        pixels = model.camera(1).img_from_cam(points[:count] @ pose[:3, :3].T + pose[:3, 3])
        image = pycolmap.Image(name=f"{row}.jpg", keypoints=pixels, camera_id=row % cameras + 1, image_id=row + 1)
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3]), pose[:3, 3])
        model.add_image_with_trivial_frame(image, rigid)
        for index in range(count):
            tracks[index].append(pycolmap.TrackElement(row + 1, index))
    for xyz, track in zip(points, tracks):
        model.add_point3D(xyz, pycolmap.Track(track), np.array([10, 20, 30], np.uint8))
    return Model(model, "incremental", False)


def nadir(count: int = 9, tilt: float = 0.0) -> list[np.ndarray]:
    """Drone poses 50 above the ground on a grid, looking down; tilt: sideways offset of what they look at."""
    places = [(8.0 * (row % 3), 8.0 * (row // 3), 50.0) for row in range(count)]
    return [look_at(place, (place[0] + tilt * (row % 2), place[1], 0), (0, 1, 0)) for row, place in enumerate(places)]


def ground(height: float, count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).uniform((-10, -10, 0), (26, 26, height), (count, 3))


def orbit(count: int = 12) -> list[np.ndarray]:
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [look_at((5 * np.cos(turn), 5 * np.sin(turn), 1), (0, 0, 0)) for turn in turns]


def ball(count: int = 60) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 3))


def test_only_parallel_views_of_flat_ground_leave_focal_and_distance_open() -> None:
    assert flat.is_flat_and_parallel(model_of(nadir(), ground(3.0)))
    assert not flat.is_flat_and_parallel(model_of(nadir(), ground(30.0)))  # towers: depth tells them apart
    assert not flat.is_flat_and_parallel(model_of(nadir(tilt=60.0), ground(3.0)))  # oblique views: so do they
    assert not flat.is_flat_and_parallel(model_of(orbit(), ball()))


def drawn_only(monkeypatch: pytest.MonkeyPatch, model: Model, focals_px: dict[int, float]) -> Model:
    """What `with_focals` gives before anything is adjusted."""
    with monkeypatch.context() as patch:
        patch.setattr(flat, "adjust", lambda *_: iter(()))
        told = returned(flat.with_focals(model, focals_px))
    told.reconstruction.update_point_3d_errors()
    return told


def test_parallel_views_are_as_good_with_another_focal_length_from_another_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(nadir(), ground(3.0), lens="SIMPLE_RADIAL")
    told = drawn_only(monkeypatch, model, {1: 1000.0})
    assert told.held_focal and told.registered == 9 and told.error_px < 1e-6
    heights = [image.projection_center()[2] for image in told.reconstruction.images.values()]
    low = min(point.xyz[2] for point in told.reconstruction.points3D.values())
    assert np.ptp(heights) < 1e-6 and np.mean(heights) - low == pytest.approx(1.25 * 50, rel=0.01)
    assert told.reconstruction.camera(1).params == pytest.approx([1000, 480, 320, -0.1 * 1.25**2])
    assert focal_px(model) == pytest.approx(800) and model.error_px < 1e-6  # which stays as it is


def test_what_drawing_out_leaves_of_tilted_views_is_adjusted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(nadir(tilt=6.0), ground(3.0), lens="SIMPLE_RADIAL")
    drawn, told = drawn_only(monkeypatch, model, {1: 1000.0}), returned(flat.with_focals(model, {1: 1000.0}))
    assert focal_px(told) == pytest.approx(1000)
    assert told.error_px < 0.2 * drawn.error_px and drawn.error_px > 1


def test_a_camera_that_exif_does_not_tell_of_changes_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(nadir(), ground(3.0), lens="SIMPLE_RADIAL", cameras=2)
    told = drawn_only(monkeypatch, model, {2: 1000.0})
    assert [told.reconstruction.camera(camera_id).focal_length for camera_id in (1, 2)] == pytest.approx([1000, 1000])
    assert told.error_px < 1e-6


@pytest.mark.parametrize("starving", [{}, {3: MIN_SEEN - 1}, {0: 0, 5: 3}])
def test_photos_that_see_next_to_nothing_are_taken_out(starving: dict[int, int]) -> None:
    model = model_of(orbit(), ball(), starving)
    drop_starved(model.reconstruction)
    assert model.names == {f"{row}.jpg" for row in range(12) if row not in starving}
    assert model.registered == 12 - len(starving) and seen_per_photo(model.reconstruction) == 60


def test_photos_that_starve_once_others_are_gone_go_too() -> None:
    model = model_of(orbit(3), ball(MIN_SEEN - 1))
    drop_starved(model.reconstruction)
    assert model.registered == 0


def with_error(error_px: float, count: int = 12) -> Model:
    """Photos around a ball, every point seen `error_px` beside where it is."""
    model = model_of(orbit(count), ball())
    for image in model.reconstruction.images.values():
        for point in image.points2D:
            point.xy = point.xy + np.array([error_px, 0])
    model.reconstruction.update_point_3d_errors()
    return model


def test_more_photos_are_better_and_a_clearly_smaller_error_of_as_many_is_closer() -> None:
    loose, tight, similar, fewer = with_error(1.0), with_error(0.4), with_error(0.9), with_error(0.1, 11)
    assert loose.error_px == pytest.approx(1.0, rel=1e-3)
    assert better(fewer, loose) is loose and better(loose, tight) is loose
    assert better(None, loose) is loose and better(loose, None) is loose and better(None, None) is None
    assert closer(loose, tight) is tight
    assert closer(loose, similar) is loose and closer(loose, fewer) is loose and closer(loose, None) is loose


def test_drift_is_the_usual_ratio_to_a_prior_either_way() -> None:
    model = model_of(orbit(3), ball())
    assert focal_px(model) == pytest.approx(800)

    def drift(*priors: float | None) -> float | None:
        photos = tuple(Photo(f"{row}.jpg", 960, 640, focal_px=prior) for row, prior in enumerate(priors))
        return focal_drift(model, PhotoSet(Path(), photos))

    assert drift(None, None, None) is None and drift(None, None, None, 800) is None  # the fourth is not in the model
    assert drift(800, None, 800) == pytest.approx(1)
    assert drift(400, 400, None) == pytest.approx(2) and drift(1600, 1600, 800) == pytest.approx(2)
    assert drift(400, 800, 800) == pytest.approx(1), "one photo that was cropped and kept its EXIF"


def test_a_snapshot_is_the_model_in_plain_types() -> None:
    poses, points = orbit(4), ball(20)
    shown = plain(model_of(poses, points, {2: 5}).reconstruction)
    assert [view.name for view in shown.views] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    np.testing.assert_allclose(shown.points, points)
    assert (shown.colors == [10, 20, 30]).all()
    for view, pose in zip(shown.views, poses):
        np.testing.assert_allclose(view.camera.cam_from_world, pose, atol=1e-12)
        np.testing.assert_allclose(view.camera.K, K)
    assert [len(view.point_indices) for view in shown.views] == [20, 20, 5, 20]
