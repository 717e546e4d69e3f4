"""Stepping outward from the capture, against recorded values and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from difix3d.errors import ShapeError
from difix3d.trajectories.progressive import STEP, nearest_poses, pose_distances, shift_poses


def random_poses(count: int, spread: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(0, spread, (count, 3))
    return poses


@pytest.mark.shared
def test_recorded_shifts(shared) -> None:
    recorded = np.load(shared / "golden" / "expected" / "pose_shift.npz")
    train, target = recorded["train"], recorded["target"]
    wanted = recorded["distance"]
    known = ~np.isnan(wanted)  # the reference has no angle for some equal rotations
    np.testing.assert_allclose(
        pose_distances(train, target)[known], wanted[known], atol=1e-7
    )  # arccos near 1 turns 1e-16 into 1e-8
    assert np.array_equal(nearest_poses(train, target), recorded["nearest"])
    poses = train
    for shifted, nearest in zip(recorded["shifted"], recorded["nearest_ref"]):
        poses = shift_poses(poses, target)
        np.testing.assert_allclose(poses, shifted, atol=1e-12)
        assert np.array_equal(nearest_poses(train, poses), nearest)


def test_equal_rotations_are_no_angle_apart() -> None:
    """Rounding takes the cosine beyond 1 for some."""
    poses = random_poses(500, 1.0, 0)
    assert np.abs(np.diag(pose_distances(poses, poses))).max() < 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_steps_are_bounded_and_arrive(seed) -> None:
    poses, targets = random_poses(5, 1.0, seed), random_poses(7, 4.0, 100 + seed)
    for _ in range(60):
        moved = shift_poses(poses, targets)
        start = poses[nearest_poses(poses, targets)]
        lengths = np.linalg.norm(moved[:, :3, 3] - start[:, :3, 3], axis=-1)
        assert (lengths <= 2 * STEP + 1e-9).all()  # a step, and what is left where that is no more than one
        np.testing.assert_allclose(np.linalg.det(moved[:, :3, :3]), 1.0, atol=1e-9)
        poses = moved
    np.testing.assert_allclose(poses, targets, atol=1e-9)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"targets: expected \[N, 4, 4\]"):
        shift_poses(np.eye(4)[None], np.eye(4))
