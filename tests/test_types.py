"""Cameras and splats: shapes are checked in words, resizing keeps rays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difix3d.errors import ShapeError
from difix3d.types import Camera, Reconstruction, Splats


def camera(width: int = 64, height: int = 48) -> Camera:
    K = np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    cam_from_world[:3, 3] = [1, 2, 3]
    return Camera(K, width, height, cam_from_world)


def test_world_from_cam_is_the_inverse() -> None:
    np.testing.assert_allclose(camera().world_from_cam @ camera().cam_from_world, np.eye(4), atol=1e-12)


@given(st.integers(8, 4000))
def test_resizing_keeps_where_a_ray_meets_the_picture(long_side: int) -> None:
    before = camera()
    after = before.resized(long_side)
    assert max(after.width, after.height) == long_side
    ray = np.array([0.2, -0.1, 1.0])
    share_before = (before.K @ ray)[:2] / [before.width, before.height]
    share_after = (after.K @ ray)[:2] / [after.width, after.height]
    np.testing.assert_allclose(share_after, share_before, rtol=1e-9)


def test_shapes_are_told_in_words() -> None:
    with pytest.raises(ShapeError, match=r"quats: expected \[2, 4\], got \[2, 3\]"):
        Splats(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 1, 3)))
    with pytest.raises(ShapeError, match="sh: expected 1, 4, 9 or 16"):
        Splats(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 5, 3)))
    with pytest.raises(ShapeError, match=r"K: expected \[3, 3\]"):
        Camera(np.eye(4), 4, 4, np.eye(4))
    with pytest.raises(KeyError, match="no view 'x'"):
        Reconstruction((), np.zeros((0, 3)), np.zeros((0, 3), np.uint8)).view("x")
