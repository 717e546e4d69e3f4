"""Round trips and invariants of poses, projection and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from difix3d import geometry
from difix3d.errors import ReconstructionError, ShapeError
from difix3d.types import Camera, Reconstruction, View

seeds = st.integers(0, 2**32 - 1)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    return geometry.quat_to_rotation(rng.normal(size=4))


def random_similarity(rng: np.random.Generator) -> np.ndarray:
    similarity = np.eye(4)
    similarity[:3, :3] = np.exp(rng.uniform(-2, 2)) * random_rotation(rng)
    similarity[:3, 3] = rng.normal(size=3) * 5
    return similarity


def random_camera(rng: np.random.Generator) -> Camera:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = random_rotation(rng), rng.normal(size=3)
    f = rng.uniform(20, 60)
    return Camera(np.array([[f, 0, 15.5], [0, f * 1.1, 12], [0, 0, 1]]), 32, 24, pose)


def orbit(rng: np.random.Generator, views: int = 12, span: float = 2 * np.pi, pitch: float = 0.4) -> Reconstruction:
    """Cameras on part of a circle about the origin, z up, looking at it; points around the origin."""
    points = rng.normal(size=(60, 3)) * 0.1
    K = np.array([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    made = []
    for index, yaw in enumerate(np.linspace(0, span, views, endpoint=False)):
        position = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        camera = Camera(K, 32, 24, geometry.look_at(position, (0, 0, 0)))
        made.append(View(f"{index:05d}.jpg", camera, None, np.arange(60)))
    return Reconstruction(tuple(made), points, np.zeros((60, 3), np.uint8))


@given(seeds)
def test_quaternions_round_trip(seed: int) -> None:
    quats = np.random.default_rng(seed).normal(size=(7, 4))
    rotations = geometry.quat_to_rotation(quats)
    np.testing.assert_allclose(
        rotations @ np.swapaxes(rotations, -1, -2), np.broadcast_to(np.eye(3), (7, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    back = np.roll(Rotation.from_matrix(rotations).as_quat(canonical=True), 1, axis=-1)  # wxyz
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs((back * unit).sum(axis=1)), 1)
    assert (back[:, 0] >= 0).all()
    np.testing.assert_allclose(geometry.quat_to_rotation(back), rotations, atol=1e-12)


def test_a_known_quaternion() -> None:
    half = np.sqrt(0.5)
    quarter_about_z = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(geometry.quat_to_rotation([half, 0, 0, half]), quarter_about_z, atol=1e-15)
    np.testing.assert_allclose(geometry.quat_to_rotation([0, 0, 1, 0]), np.diag([-1.0, 1, -1]), atol=1e-12)


@given(seeds)
def test_projection_undoes_unprojection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera, depth = random_camera(rng), rng.uniform(0.1, 9, size=(24, 32))
    pixels, depth_back = geometry.project(camera, geometry.unproject(camera, depth).reshape(-1, 3))
    x, y = np.meshgrid(np.arange(32) + 0.5, np.arange(24) + 0.5)
    np.testing.assert_allclose(pixels, np.stack([x, y], axis=-1).reshape(-1, 2), atol=1e-8)
    np.testing.assert_allclose(depth_back, depth.ravel())


def test_points_behind_have_no_pixel() -> None:
    camera = Camera(np.eye(3), 4, 4, np.eye(4))
    pixels, depth = geometry.project(camera, [[1, 2, 2], [0, 0, -1]])
    assert pixels[0].tolist() == [0.5, 1.0] and np.isnan(pixels[1]).all() and depth.tolist() == [2, -1]


@given(seeds)
def test_rotation_between_turns_one_into_the_other(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 3))
    for target in (b, a, -a):
        rotation = geometry.rotation_between(a, target)
        np.testing.assert_allclose(rotation @ a / np.linalg.norm(a), target / np.linalg.norm(target), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)


@given(seeds)
def test_look_at_centres_the_target_with_up_upwards(seed: int) -> None:
    position, target, up = np.random.default_rng(seed).normal(size=(3, 3))
    camera = Camera(np.diag([10.0, 10, 1]), 8, 8, geometry.look_at(position, target, up))
    pixels, depth = geometry.project(camera, [target])
    np.testing.assert_allclose(pixels, 0, atol=1e-9)
    assert depth[0] == pytest.approx(np.linalg.norm(target - position))
    np.testing.assert_allclose(camera.position, position, atol=1e-9)
    assert camera.cam_from_world[1, :3] @ up < 0 and camera.cam_from_world[0, :3] @ up == pytest.approx(0, abs=1e-9)


def test_look_at_along_up_still_is_a_rotation() -> None:
    pose = geometry.look_at((0, 0, 2), (0, 0, 0), (0, 0, 1))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    with pytest.raises(ShapeError):
        geometry.look_at((1, 1, 1), (1, 1, 1))


@settings(max_examples=40)
@given(seeds)
def test_similarity_keeps_pictures_and_scales_depth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, similarity = orbit(rng), random_similarity(rng)
    after = geometry.transform_reconstruction(before, similarity)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    for old, new in zip(before.views, after.views):
        old_pixels, old_depth = geometry.project(old.camera, before.points)
        new_pixels, new_depth = geometry.project(new.camera, after.points)
        np.testing.assert_allclose(new_pixels, old_pixels, atol=1e-6)
        np.testing.assert_allclose(new_depth, old_depth * scale)
    np.testing.assert_allclose(geometry.triangulation_angles_deg(after), geometry.triangulation_angles_deg(before))


@settings(max_examples=40)
@given(seeds, st.floats(0.8, 2 * np.pi), st.floats(-0.3, 0.9))
def test_normalising_finds_up_centre_and_scale_from_any_world(seed: int, span: float, pitch: float) -> None:
    rng = np.random.default_rng(seed)
    moved = geometry.transform_reconstruction(orbit(rng, span=span, pitch=pitch), random_similarity(rng))
    normal = geometry.transform_reconstruction(moved, geometry.normalising_similarity(moved))
    positions = np.array([view.camera.position for view in normal.views])
    assert np.median(np.linalg.norm(positions, axis=1)) == pytest.approx(1)
    assert np.linalg.norm(normal.points.mean(axis=0)) < 0.1
    # An orbit about a vertical axis keeps its height: up is right to a few degrees even for part of a circle.
    assert positions[:, 2].std() < 0.1 and positions[:, 2].mean() == pytest.approx(np.sin(pitch), abs=0.15)
    np.testing.assert_allclose(geometry.normalising_similarity(normal), np.eye(4), atol=1e-4)


def test_up_of_a_drone_that_flies_to_and_fro_is_against_its_view() -> None:
    views = []
    for index in range(8):
        heading = (0, 1, 0) if index % 2 else (0, -1, 0)
        position = np.array([index, 0, 5.0])
        pose = geometry.look_at(position, position - (0, 0, 1), heading)
        views.append(View(f"{index}.jpg", Camera(np.diag([10.0, 10, 1]), 8, 8, pose), None, np.arange(4)))
    ground = np.array([[0, 0, 0], [4, 1, 0], [7, -1, 0], [3, 0, 0.0]])
    reconstruction = Reconstruction(tuple(views), ground, np.zeros((4, 3), np.uint8))
    np.testing.assert_allclose(geometry.up_direction(reconstruction), [0, 0, 1], atol=1e-6)


def test_normalising_without_points_uses_the_optical_axes() -> None:
    full = orbit(np.random.default_rng(0))
    bare = Reconstruction(
        tuple(View(view.name, view.camera) for view in full.views), np.empty((0, 3)), np.empty((0, 3), np.uint8)
    )
    np.testing.assert_allclose(geometry.looked_at_point(bare), 0, atol=1e-2)
    with pytest.raises(ReconstructionError):
        geometry.normalising_similarity(Reconstruction((), bare.points, bare.colors))


@settings(max_examples=20)
@given(seeds)
def test_triangulation_angles_agree_with_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = orbit(rng, views=6, span=1.0)
    views = tuple(View(v.name, v.camera, None, np.flatnonzero(rng.random(60) < 0.5)) for v in full.views)
    angles = geometry.triangulation_angles_deg(Reconstruction(views, full.points, full.colors))
    for row, point in enumerate(full.points):
        rays = [v.camera.position - point for v in views if row in v.point_indices]
        rays = [ray / np.linalg.norm(ray) for ray in rays]
        cosines = [a @ b for i, a in enumerate(rays) for b in rays[:i]]
        expected = np.degrees(np.arccos(np.clip(min(cosines), -1, 1))) if cosines else 0
        assert angles[row] == pytest.approx(expected, abs=1e-5)


@given(st.floats(0, 179), seeds)
def test_pose_distance(degrees: float, seed: int) -> None:
    camera = random_camera(np.random.default_rng(seed))
    turn = np.eye(4)
    angle = np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    distance, turned = geometry.pose_distance(camera, camera.moved(turn @ camera.cam_from_world))
    assert distance == pytest.approx(0, abs=1e-9) and turned == pytest.approx(degrees, abs=1e-6)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match="quats"):
        geometry.quat_to_rotation(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="depth"):
        geometry.unproject(Camera(np.eye(3), 4, 3, np.eye(4)), np.zeros((4, 3)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_in_one_place_have_it_as_their_median(count: int) -> None:
    median = geometry.geometric_median(np.repeat([[1.0, 2.0, 3.0]], count, axis=0))
    np.testing.assert_allclose(median, (1, 2, 3), atol=1e-12)
