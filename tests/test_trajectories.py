"""Novel cameras: rigid, smooth, looking at the subject, out of its way, and moving with the scene."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_scene import make_synthetic_scene

from difix3d.errors import ConfigError, ReconstructionError
from difix3d.geometry import (
    look_at,
    looked_at_point,
    pose_distance,
    project,
    transform_camera,
    transform_reconstruction,
)
from difix3d.trajectories import MAX_FRAMES, NAMES, make_trajectory, median_lens
from difix3d.types import Camera, Reconstruction, Trajectory, View

LOOKING = ("orbit", "spiral", "extrapolate")
"""Those that face the subject exactly."""
WIDTH, HEIGHT = 96, 64


def reconstruct(positions: np.ndarray, targets: np.ndarray, points: np.ndarray, up=(0, 0, 1)) -> Reconstruction:
    """Cameras at positions [N, 3] that look at targets [N, 3] and see the points [P, 3] in their picture."""
    K = np.array([[100.0, 0, WIDTH / 2], [0, 100.0, HEIGHT / 2], [0, 0, 1]])
    views = []
    for index, (position, target) in enumerate(zip(positions, targets)):
        camera = Camera(K, WIDTH, HEIGHT, look_at(position, target, up))
        pixels, depth = project(camera, points)
        seen = (depth > 0) & (pixels > 0).all(axis=1) & (pixels < (WIDTH, HEIGHT)).all(axis=1)
        views.append(View(f"{index:03d}.jpg", camera, None, np.flatnonzero(seen)))
    return Reconstruction(tuple(views), points, np.zeros((len(points), 3), np.uint8))


def statue(seed: int = 0, views: int = 24, shuffled: bool = False) -> Reconstruction:
    """A ring of cameras at eye height around a pillar on the ground."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, views, endpoint=False) + rng.normal(0, 0.04, views)
    angles = rng.permutation(angles) if shuffled else angles
    radius = rng.uniform(0.9, 1.1, views)
    positions = np.stack([radius * np.cos(angles), radius * np.sin(angles), rng.normal(0, 0.03, views)], axis=1)
    around = rng.uniform(0, 2 * np.pi, 900)
    pillar = np.stack([0.15 * np.cos(around), 0.15 * np.sin(around), rng.uniform(-0.3, 0.3, 900)], axis=1)
    floor = np.column_stack([rng.uniform(-0.6, 0.6, (300, 2)), np.full(300, -0.3)])
    return reconstruct(positions, rng.normal(0, 0.02, (views, 3)), np.concatenate([pillar, floor]))


def relief(seed: int = 0, views: int = 20) -> Reconstruction:
    """A sweep along a wall at y = 0, photographed from y = -1."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-0.7, 0.7, views)
    positions = np.stack([x, rng.normal(-1, 0.02, views), rng.normal(0, 0.02, views)], axis=1)
    wall = np.stack([rng.uniform(-1, 1, 800), rng.normal(0, 0.01, 800), rng.uniform(-0.4, 0.4, 800)], axis=1)
    return reconstruct(positions, positions + np.array([0.0, 1.0, 0.0]), wall)


def nadir(seed: int = 0) -> Reconstruction:
    """A drone that flies to and fro at height 1 over rough ground, its picture's top always to the north."""
    rng = np.random.default_rng(seed)
    rows = [(x, y) for i, x in enumerate((-0.5, 0.0, 0.5)) for y in np.linspace(-0.6, 0.6, 6) * (1 - 2 * (i % 2))]
    positions = np.column_stack([np.array(rows) + rng.normal(0, 0.01, (18, 2)), np.full(18, 1.0)])
    ground = np.column_stack([rng.uniform(-1, 1, (900, 2)), rng.normal(0, 0.03, 900)])
    return reconstruct(positions, positions - np.array([0, 0, 1.0]), ground, up=(0, 1, 0))


def street(seed: int = 0, views: int = 30) -> Reconstruction:
    """A walk of 0.4 towards a house front, between two rows of houses."""
    rng = np.random.default_rng(seed)
    y = np.linspace(-1.2, -0.8, views)
    positions = np.stack([rng.normal(0, 0.005, views), y, rng.normal(0, 0.005, views)], axis=1)
    front = np.stack([rng.uniform(-0.6, 0.6, 500), np.zeros(500), rng.uniform(-0.1, 0.6, 500)], axis=1)
    side = np.stack([rng.choice([-0.6, 0.6], 500), rng.uniform(-1, 0, 500), rng.uniform(-0.1, 0.6, 500)], axis=1)
    return reconstruct(positions, positions + np.array([0.0, 1.0, 0.0]), np.concatenate([front, side]))


CAPTURES = {"statue": statue, "relief": relief, "nadir": nadir, "street": street}


def positions_of(trajectory: Trajectory) -> np.ndarray:
    return np.stack([camera.position for camera in trajectory.cameras])


everywhere = pytest.mark.parametrize("capture", CAPTURES)
every_name = pytest.mark.parametrize("name", NAMES)


@everywhere
@every_name
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), frames=st.integers(1, 90))
def test_count_rotations_and_lens(name: str, capture: str, seed: int, frames: int) -> None:
    reconstruction = CAPTURES[capture](seed)
    trajectory = make_trajectory(name, reconstruction, frames=frames, fps=30)
    assert (trajectory.name, len(trajectory), trajectory.fps) == (name, frames, 30)
    lens = median_lens([view.camera for view in reconstruction.views])
    for camera in trajectory.cameras:
        R = camera.cam_from_world[:3, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(R) > 0
        np.testing.assert_array_equal(camera.K, lens.K)
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    again = make_trajectory(name, reconstruction, frames=frames, fps=30)
    for one, other in zip(trajectory.cameras, again.cameras):
        np.testing.assert_array_equal(one.cam_from_world, other.cam_from_world)


@everywhere
@every_name
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_paths_are_smooth(name: str, capture: str, seed: int) -> None:
    cameras = make_trajectory(name, CAPTURES[capture](seed), frames=48).cameras
    steps = np.array([pose_distance(a, b) for a, b in pairwise(cameras)])
    positions = np.stack([camera.position for camera in cameras])
    assert steps[:, 0].max() < 0.2 and steps[:, 1].max() < 12
    # No jump: no step is far above the mean of its neighbours, and no kink turns the path back at full speed.
    assert steps[:, 0].max() <= 4 * steps[:, 0].mean() + 1e-9
    bends = np.linalg.norm(np.diff(positions, 2, axis=0), axis=1)
    assert bends.max() <= 1.5 * steps[:, 0].max() + 1e-9


@everywhere
@pytest.mark.parametrize("name", LOOKING)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_subject_is_in_the_middle_and_upright(name: str, capture: str, seed: int) -> None:
    reconstruction = CAPTURES[capture](seed)
    subject = looked_at_point(reconstruction)
    assert capture != "statue" or np.linalg.norm(subject) < 0.15  # the pillar stands at the origin
    for camera in make_trajectory(name, reconstruction, frames=24).cameras:
        (pixel,), (depth,) = project(camera, subject[None])
        assert depth > 0.2
        np.testing.assert_allclose(pixel, (WIDTH / 2, HEIGHT / 2), atol=1e-6)
        above = -camera.cam_from_world[1, :3]
        assert above[1] > 0.5 if capture == "nadir" else above[2] > 0.5


@everywhere
@every_name
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_nothing_flies_into_the_subject_or_under_the_ground(name: str, capture: str, seed: int) -> None:
    reconstruction = CAPTURES[capture](seed)
    positions = positions_of(make_trajectory(name, reconstruction, frames=60))
    if capture == "statue":
        lowest, floor = min(view.camera.position[2] for view in reconstruction.views), reconstruction.points[:, 2].min()
        assert np.linalg.norm(positions[:, :2], axis=1).min() > 0.6  # the pillar's radius is 0.15
        assert positions[:, 2].min() > floor + 0.25 * (lowest - floor)
    else:
        nearest = np.linalg.norm(positions[:, None] - reconstruction.points[None], axis=-1).min()
        assert nearest > 0.25
    if capture == "nadir":
        assert positions[:, 2].min() > 0.3  # the drone is at height 1
    if capture == "relief":
        assert positions[:, 1].max() < -0.15  # before the wall


@every_name
@pytest.mark.parametrize("capture", ["statue", "relief", "nadir", "street"])
@settings(max_examples=6, deadline=None)
@given(turn=st.floats(-3, 3), scale=st.floats(0.2, 5), offset=st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_moved_scene_has_a_moved_path(name: str, capture: str, turn: float, scale: float, offset) -> None:
    """Turned about the vertical, scaled, shifted: similarity-equivariant."""
    similarity = np.eye(4)
    c, s = np.cos(turn), np.sin(turn)
    similarity[:3, :3] = scale * np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    similarity[:3, 3] = offset
    reconstruction = CAPTURES[capture](3)
    here = make_trajectory(name, reconstruction, frames=17)
    there = make_trajectory(name, transform_reconstruction(reconstruction, similarity), frames=17)
    for one, other in zip(here.cameras, there.cameras):
        distance, angle = pose_distance(transform_camera(one, similarity), other)
        assert distance < 1e-5 * scale and angle < 1e-3


def test_an_orbit_is_a_full_circle_only_around_what_was_walked_around() -> None:
    circle = positions_of(make_trajectory("orbit", statue(), frames=36))
    np.testing.assert_allclose(np.linalg.norm(circle[:, :2], axis=1), 1.0, atol=0.1)
    assert np.ptp(np.unwrap(np.arctan2(circle[:, 1], circle[:, 0]))) == pytest.approx(2 * np.pi * 35 / 36, abs=0.2)
    arc = positions_of(make_trajectory("orbit", relief(), frames=36))
    captured = [view.camera.position[0] for view in relief().views]
    assert arc[:, 1].max() < -0.5 and min(captured) < arc[:, 0].min() < -0.2 < 0.2 < arc[:, 0].max() < max(captured)


@everywhere
def test_a_turntable_is_a_full_even_turn_around_the_subject_of_any_capture(capture: str) -> None:
    reconstruction = CAPTURES[capture]()
    subject = looked_at_point(reconstruction)
    cameras = make_trajectory("turntable", reconstruction, frames=36).cameras
    offsets = np.stack([camera.position for camera in cameras]) - subject
    turned = np.degrees(np.diff(np.unwrap(np.arctan2(offsets[:, 1], offsets[:, 0])), append=[np.nan])[:-1])
    np.testing.assert_allclose(turned, 10.0, atol=1e-6)  # 36 steps with the one back to the start: it loops
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), np.linalg.norm(offsets[0]), rtol=1e-9)
    assert np.linalg.norm(offsets[0, :2]) > 0.6 * np.linalg.norm(offsets[0])  # beside it, even if seen from above
    for camera in cameras:
        (pixel,), (depth,) = project(camera, subject[None])
        np.testing.assert_allclose(pixel, (WIDTH / 2, HEIGHT / 2), atol=1e-6)
        assert depth > 0.2 and -camera.cam_from_world[1, 2] > 0.6


@pytest.mark.parametrize("capture", ["relief", "street", "statue"])
def test_extrapolation_leaves_the_captured_range_as_far_as_asked(capture: str) -> None:
    def elevations_and_azimuths(positions: np.ndarray) -> tuple[float, float]:
        up = np.arcsin(positions[:, 2] / np.linalg.norm(positions, axis=1))
        return float(np.degrees(up.max())), float(
            np.degrees(np.abs(np.arctan2(positions[:, 0], -positions[:, 1])).max())
        )

    reconstruction = CAPTURES[capture]()
    high, wide = elevations_and_azimuths(positions_of(make_trajectory("extrapolate", reconstruction)))
    inside_high, inside_wide = elevations_and_azimuths(
        positions_of(make_trajectory("extrapolate", reconstruction, factor=1))
    )
    least = {"relief": 9.9, "street": 2.9, "statue": 5}[capture]  # a ring is left less far where the ground is near
    assert least < high - inside_high < 26
    if capture != "statue":
        assert least < wide - inside_wide < 26


def test_interpolation_follows_capture_order_and_makes_a_tour_of_a_shuffled_one() -> None:
    ordered = positions_of(make_trajectory("interpolate", statue(views=24), frames=96))
    for view in statue(views=24).views:
        assert np.linalg.norm(ordered - view.camera.position, axis=1).min() < 0.12
    np.testing.assert_allclose(ordered[0], statue(views=24).views[0].camera.position, atol=1e-6)
    np.testing.assert_allclose(ordered[-1], statue(views=24).views[-1].camera.position, atol=1e-6)
    tour = positions_of(make_trajectory("interpolate", statue(views=24, shuffled=True), frames=96))
    length = np.linalg.norm(np.diff(tour, axis=0), axis=1).sum()
    assert length < 1.3 * np.linalg.norm(np.diff(ordered, axis=0), axis=1).sum()


def test_between_two_opposite_photos_the_path_goes_around_the_subject() -> None:
    positions = np.array([[1.0, 0.02, 0.1], [-1.0, -0.02, 0.1]])
    points = np.random.default_rng(0).normal(0, 0.1, (200, 3))
    path = positions_of(make_trajectory("interpolate", reconstruct(positions, np.zeros((2, 3)), points), frames=30))
    assert np.linalg.norm(path, axis=1).min() > 0.8


def test_a_shift_is_sideways_keeps_the_view_and_stays_below_a_quarter_of_the_picture() -> None:
    reconstruction = relief()
    along = make_trajectory("interpolate", reconstruction, frames=20)
    for asked, expected in ((0.1, 0.1), (-0.1, 0.1), (5.0, 0.25 * WIDTH / 100)):
        aside = make_trajectory("shift", reconstruction, frames=20, shift=asked)
        for a, b in zip(along.cameras, aside.cameras):
            moved = a.cam_from_world[:3, :3] @ (b.position - a.position)
            assert abs(moved[0]) == pytest.approx(expected, rel=0.1) and np.abs(moved[1:]).max() < 1e-9
            assert pose_distance(a, b)[1] < 1e-6


@every_name
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_views_and_no_points_are_enough(name: str, count: int) -> None:
    positions = np.array([[0.0, -1.0, 0.1], [0.1, -1.0, 0.1], [0.2, -0.9, 0.1]])[:count]
    reconstruction = reconstruct(positions, np.zeros((count, 3)), np.empty((0, 3)))
    cameras = make_trajectory(name, reconstruction, frames=7).cameras
    assert len(cameras) == 7 and all(np.isfinite(camera.cam_from_world).all() for camera in cameras)
    assert all(camera.forward[1] > 0.5 for camera in cameras)


@every_name
def test_photos_taken_from_one_spot(name: str) -> None:
    positions = np.repeat([[0.0, -1.0, 0.0]], 5, axis=0)
    points = np.random.default_rng(0).normal(0, 0.2, (100, 3))
    cameras = make_trajectory(name, reconstruct(positions, np.zeros((5, 3)), points), frames=9).cameras
    assert all(np.isfinite(camera.cam_from_world).all() for camera in cameras)
    assert all(camera.forward[1] > 0.9 for camera in cameras)


def test_the_lens_is_that_of_the_median_view_of_the_commonest_size() -> None:
    def camera(focal: float, width: int, height: int) -> Camera:
        return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), width, height, np.eye(4))

    cameras = [camera(50, 96, 64), camera(70, 96, 64), camera(60, 96, 64), camera(900, 64, 96)]
    assert median_lens(cameras).K[0, 0] == 60


@pytest.mark.parametrize(
    ("name", "settings_", "words"),
    [
        ("loop", {}, "Choose one of orbit"),
        ("orbit", {"frames": 0}, "1 to 10,000"),
        ("orbit", {"frames": MAX_FRAMES + 1}, "1 to 10,000"),
        ("orbit", {"fps": 0.0}, "positive"),
        ("orbit", {"fps": float("nan")}, "positive"),
        ("extrapolate", {"factor": 0.5}, "at least 1"),
        ("shift", {"shift": float("inf")}, "share"),
    ],
)
def test_impossible_settings_are_named(name: str, settings_: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_trajectory(name, make_synthetic_scene(views=4).reconstruction, **settings_)


def test_no_views_is_said() -> None:
    with pytest.raises(ReconstructionError, match="no cameras"):
        make_trajectory("orbit", Reconstruction((), np.empty((0, 3)), np.empty((0, 3), np.uint8)))
