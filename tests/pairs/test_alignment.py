"""A render is known from its photo through blur, floaters and exposure; a wrong place and a wrong photo are found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.errors import ShapeError
from difix3d.pairs.alignment import align

HEIGHT, WIDTH = 180, 270
MARGIN = 24
FULL = np.ones((HEIGHT, WIDTH), np.float32)


def scenery(seed: int) -> np.ndarray:
    """[HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3] uint8: shapes with edges of all sizes on a soft background."""
    rng = np.random.default_rng(seed)
    size = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (*size, 3)).astype(np.float32), (0, 0), 25) * 1.0
    picture = (picture - picture.mean()) * 8 + 128
    for _ in range(90):
        center = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        color = tuple(float(value) for value in rng.uniform(20, 235, 3))
        cv2.circle(picture, center, int(rng.integers(3, 22)), color, -1)
    return np.clip(picture, 0, 255).astype(np.uint8)


def view(picture: np.ndarray, dx: int = 0, dy: int = 0) -> np.ndarray:
    return picture[MARGIN + dy : MARGIN + dy + HEIGHT, MARGIN + dx : MARGIN + dx + WIDTH]


def as_rendered(photo: np.ndarray, seed: int) -> np.ndarray:
    """Blurred, noisy, with floaters before it: what a poor fit makes of it."""
    rng = np.random.default_rng(seed)
    render = cv2.GaussianBlur(photo, (0, 0), 2.0).astype(np.float32)
    for _ in range(8):
        center = (int(rng.integers(WIDTH)), int(rng.integers(HEIGHT)))
        cv2.ellipse(render, center, (14, 5), float(rng.uniform(0, 180)), 0, 360, (90.0, 80.0, 70.0), -1)
    return np.clip(render + rng.normal(0, 6, render.shape), 0, 255).astype(np.uint8)


@given(seed=st.integers(0, 30), gain=st.floats(0.6, 1.2), offset=st.floats(0, 40))
@settings(max_examples=25, deadline=None)
def test_flaws_and_exposure_make_no_false_alarm(seed: int, gain: float, offset: float) -> None:
    photo = view(scenery(seed))
    exposed = np.clip(photo * gain + offset, 0, 255).astype(np.uint8)
    found = align(as_rendered(photo, seed), FULL, exposed)
    assert found.problem == "" and found.found >= 8 and found.correlation > 0.5


@given(seed=st.integers(0, 30), dx=st.integers(-9, 9), dy=st.integers(-9, 9))
@settings(max_examples=25, deadline=None)
def test_a_shift_is_measured(seed: int, dx: int, dy: int) -> None:
    picture = scenery(seed)
    found = align(as_rendered(view(picture), seed), FULL, view(picture, dx, dy))
    if np.hypot(dx, dy) >= 4:
        assert found.problem.startswith("misaligned") and found.best > found.correlation
        assert np.hypot(found.shift_px[0] + dx, found.shift_px[1] + dy) <= 1.5
    elif np.hypot(dx, dy) <= 1:
        assert found.problem == ""


@pytest.mark.parametrize("seed", range(5))
def test_another_photo_is_found_out(seed: int) -> None:
    found = align(as_rendered(view(scenery(seed)), seed), FULL, view(scenery(seed + 100)))
    assert found.problem.startswith(("unrelated", "misaligned"))


def test_an_empty_render_is_no_pair_and_its_empty_part_is_not_compared() -> None:
    photo = view(scenery(3))
    alpha = FULL.copy()
    alpha[:, : WIDTH // 2] = 0
    render = as_rendered(photo, 3) * alpha[..., None].astype(np.uint8)
    assert align(render, alpha, photo).problem == ""
    assert align(render, 0.4 * FULL, photo).problem.startswith("empty")


def test_plain_walls_are_given_the_benefit_of_the_doubt() -> None:
    wall = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    found = align(wall, FULL, wall)
    assert found.blocks == 0 and found.problem == ""
    assert align(wall[:12, :12], FULL[:12, :12], wall[:12, :12]).problem == ""


def test_sizes_must_agree() -> None:
    photo = view(scenery(0))
    with pytest.raises(ShapeError, match="render"):
        align(photo[:-1], FULL, photo)
