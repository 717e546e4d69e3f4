"""Frames are chosen by how far the picture moved and how sharp it is, never by counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from difix3d.formats.keyframes import LEAST_STEP, MOST_STEP, STEP, WINDOW, Tracks, choose

WIDTH, HEIGHT = 320, 180


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """A wide textured picture to pan over, [HEIGHT, 6000] uint8."""
    import cv2

    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.integers(0, 255, (18, 600), dtype=np.uint8), (6000, HEIGHT), interpolation=cv2.INTER_CUBIC)
    fine = rng.integers(0, 90, (HEIGHT, 6000), dtype=np.uint8)
    return cv2.GaussianBlur(cv2.addWeighted(coarse, 0.7, fine, 0.6, 0), (0, 0), 1.0)


def pan(wall: np.ndarray, offsets_px: Sequence[float]) -> list[np.ndarray]:
    import cv2

    shift = lambda x: np.array([[1, 0, -x], [0, 1, 0]], dtype=np.float32)  # noqa: E731
    return [cv2.warpAffine(wall, shift(x), (WIDTH, HEIGHT)) for x in offsets_px]


def test_tracks_measure_a_pan(wall: np.ndarray) -> None:
    first, *rest = pan(wall, [0, 5, 11, 18])
    tracks = Tracks(first)
    for frame, moved in zip(rest, (5, 11, 18)):
        motion, survivors = tracks.follow(frame)
        assert motion == pytest.approx(moved / WIDTH, abs=1 / WIDTH)
        assert survivors > 0.8


def test_frames_are_even_in_motion_and_not_in_time(wall: np.ndarray) -> None:
    speeds = np.concatenate([np.full(60, 1.0), np.zeros(60), np.full(40, 6.0), np.full(120, 2.0)])
    offsets = np.cumsum(speeds)
    kept = choose(pan(wall, offsets), [1.0] * len(offsets), 200).kept
    steps = np.diff(offsets[list(kept)])
    assert len(kept) >= 24
    assert (steps >= STEP * WINDOW[0] * WIDTH - 1.5).all()
    assert (steps <= STEP * WINDOW[1] * WIDTH + 6.5).all()  # one frame of the fastest part may pass the window's end
    resting = [position for position in kept if 62 < position < 118]
    assert not resting


def test_the_sharpest_of_a_window_is_kept(wall: np.ndarray) -> None:
    offsets = np.arange(420) * 1.5
    sharpness = np.where(np.arange(420) % 3 == 1, 1.0, 0.2)
    kept = choose(pan(wall, offsets), sharpness.tolist(), 200).kept
    assert all(position % 3 == 1 for position in kept[:-1])  # the last window may end with the video


def test_too_many_frames_raise_the_step(wall: np.ndarray) -> None:
    offsets = np.arange(200) * 7.0
    selection = choose(pan(wall, offsets), [1.0] * 200, 30)
    assert 15 <= len(selection.kept) <= 30
    assert STEP < selection.step <= MOST_STEP
    assert selection.last == 199
    assert selection.kept[-1] > 185  # the whole walk is covered


def test_a_walk_longer_than_the_cap_is_kept_from_its_start_as_neighbours(wall: np.ndarray) -> None:
    offsets = np.arange(140) * 40.0  # an eighth of the picture each: 30 frames cannot span it
    selection = choose(pan(wall, offsets), [1.0] * 140, 12)
    assert len(selection.kept) == 12
    assert selection.last == selection.kept[-1] < 60
    assert np.diff(offsets[list(selection.kept)]).max() <= (MOST_STEP * WINDOW[1] + 0.125) * WIDTH


def test_a_short_clip_is_searched_with_smaller_steps(wall: np.ndarray) -> None:
    offsets = np.arange(90) * 1.6
    selection = choose(pan(wall, offsets), [1.0] * 90, 80)
    assert LEAST_STEP <= selection.step < STEP
    assert len(selection.kept) >= 16


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_a_still_camera_gives_one_frame(wall: np.ndarray, noise: float) -> None:
    rng = np.random.default_rng(5)
    still = pan(wall, [100])[0].astype(float)
    frames = [np.clip(still + rng.normal(0, noise, still.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    assert len(choose(frames, [1.0] * 40, 80).kept) == 1


def test_cuts_and_pictures_without_corners(wall: np.ndarray) -> None:
    plain = [np.full((HEIGHT, WIDTH), grey, np.uint8) for grey in (10, 10, 11, 200, 200)]
    assert len(choose(plain, [1.0] * 5, 80).kept) == 2
    cut = pan(wall, [0, 0, 0, 3000, 3000])
    assert len(choose(cut, [1.0] * 5, 80).kept) == 2
    assert choose([], [], 80).kept == ()


@pytest.mark.parametrize("seed", range(4))
def test_selections_are_rising_and_within_the_cap(wall: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.clip(np.cumsum(rng.normal(2, 6, 60)), 0, 5600)
    cap = int(rng.integers(3, 40))
    kept = choose(pan(wall, offsets), rng.random(60).tolist(), cap).kept
    assert 1 <= len(kept) <= cap
    assert (np.diff(kept) > 0).all()
