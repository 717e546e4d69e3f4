"""Did the camera move, or only turn? On made-up matches whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.geometry import quat_to_rotation
from difix3d.sfm.parallax import rotation_only_share

SIZE = (960, 640)


def matches(
    rng: np.random.Generator,
    focal_px: float,
    baseline: float,
    *,
    flat: bool = False,
    turn_deg: float = 12.0,
    noise_px: float = 0.5,
    wrong: float = 0.0,
    count: int = 150,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points 2 to 8 away (flat: a tilted wall) in two photos, the second turned and moved `baseline`."""
    center = np.array(SIZE) / 2
    rays = np.column_stack([(rng.uniform((0, 0), SIZE, (count * 4, 2)) - center) / focal_px, np.ones(count * 4)])
    depth = 4 / (1 + 0.4 * rays[:, 0] + 0.2 * rays[:, 1]) if flat else rng.uniform(2, 8, len(rays))
    points = rays * depth[:, None]
    axis = rng.standard_normal(3)
    half = np.radians(turn_deg) / 2
    rotation = quat_to_rotation([np.cos(half), *(np.sin(half) * axis / np.linalg.norm(axis))])
    shift = rng.standard_normal(3) * (1, 1, 0.3)
    moved = points @ rotation.T + baseline * shift / np.linalg.norm(shift)
    first = focal_px * rays[:, :2] + center
    second = focal_px * moved[:, :2] / moved[:, 2:] + center
    inside = ((second > 0) & (second < SIZE)).all(axis=1) & (moved[:, 2] > 0)
    first, second = first[inside][:count], second[inside][:count]
    second = second + noise_px * rng.standard_normal(second.shape)
    second[: int(wrong * len(second))] += rng.uniform(15, 40, 2)
    return first, second


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), focal_px=st.floats(500, 2500))
def test_a_turning_camera_is_found_out_whatever_its_focal_length(seed: int, focal_px: float) -> None:
    rng = np.random.default_rng(seed)
    turn_deg = 12.0 * min(1.0, 900 / focal_px)
    share, _ = rotation_only_share([matches(rng, focal_px, 0.0, turn_deg=turn_deg) for _ in range(6)], SIZE)
    assert share == 1.0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), focal_px=st.floats(500, 1500))
def test_a_moving_camera_is_not(seed: int, focal_px: float) -> None:
    rng = np.random.default_rng(seed)
    share, _ = rotation_only_share([matches(rng, focal_px, 0.5, turn_deg=6) for _ in range(6)], SIZE)
    assert share < 0.5


def test_a_flat_wall_seen_by_a_moving_camera_is_not_a_turn() -> None:
    rng = np.random.default_rng(1)
    share, _ = rotation_only_share([matches(rng, 800, 1.2, flat=True, turn_deg=4) for _ in range(8)], SIZE)
    assert share < 0.5


def test_a_few_wrong_matches_change_nothing() -> None:
    rng = np.random.default_rng(2)
    turned = [matches(rng, 800, 0.0, wrong=0.1) for _ in range(6)]
    assert rotation_only_share(turned, SIZE)[0] == 1.0


def test_the_focal_length_that_explains_the_turn_is_near_the_true_one() -> None:
    rng = np.random.default_rng(3)
    _, focal_px = rotation_only_share([matches(rng, 700, 0.0, turn_deg=25, noise_px=0.2) for _ in range(12)], SIZE)
    assert focal_px == pytest.approx(700, rel=0.25)


def test_share_is_of_pairs() -> None:
    rng = np.random.default_rng(4)
    mixed = [matches(rng, 800, 0.0) for _ in range(6)] + [matches(rng, 800, 0.8, turn_deg=5) for _ in range(2)]
    assert rotation_only_share(mixed, SIZE)[0] == pytest.approx(0.75)
    assert rotation_only_share([], SIZE)[0] == 0.0
