"""How much of a fix is shown: the arithmetic, and what a scene's kept-out photos say."""

from __future__ import annotations

import numpy as np
import pytest

from difix3d import metrics
from difix3d.fixers.strength import Compared, compare, shown, strength_of


def grey(value: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(value, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def noise() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo, and the errors of a render and a fix that know nothing of each other."""
    rng = np.random.default_rng(3)
    return rng.uniform(60, 190, (64, 80)), *(rng.normal(0, 12, (64, 80)) for _ in range(2))


def test_errors_that_are_alike_in_size_and_independent_show_most_of_the_fix_and_harm_nothing(noise) -> None:
    truth, of_render, of_fix = noise
    photo, render, fixed = grey(truth), grey(truth + of_render), grey(truth + of_fix)
    compared = compare("a", photo, render, fixed)
    strength = strength_of([compared])
    assert strength == pytest.approx(0.85, abs=0.03)  # half of each is best, all of it as good as nothing
    assert metrics.psnr(shown(render, fixed, strength), photo) > metrics.psnr(render, photo) + 0.4


def test_a_worse_fix_is_shown_less_and_a_better_one_whole(noise) -> None:
    truth, of_render, of_fix = noise
    photo, render = grey(truth), grey(truth + of_render)
    worse, better = (compare("a", photo, render, grey(truth + factor * of_fix)) for factor in (1.5, 0.5))
    assert 0.4 < strength_of([worse]) < 0.65
    assert strength_of([better]) == 1.0
    kept = shown(render, grey(truth + 1.5 * of_fix), strength_of([worse]))
    assert metrics.psnr(kept, photo) > metrics.psnr(render, photo)


def test_the_figures_are_means_of_squares(noise) -> None:
    truth, of_render, _ = noise
    photo, render = grey(truth), grey(truth + of_render)
    found = compare("a", photo, render, photo)
    mse = np.mean((photo.astype(np.float64) - render) ** 2)
    assert found.before == found.along == found.change == pytest.approx(mse)


def test_each_photo_counts_by_its_own_error() -> None:
    dark, bright = Compared("dark", 1.0, 0.3, 1.0), Compared("bright", 1e4, 2e3, 8e3)
    assert strength_of([dark]) == 0.51 and strength_of([bright]) == 0.42
    assert strength_of([dark, bright]) == 0.47  # of sums it would be that of the bright one


def test_nothing_compared_and_nothing_changed_leave_a_fix_whole_and_pure_harm_leaves_a_quarter() -> None:
    assert strength_of([]) == 1.0
    assert strength_of([Compared("a", 5.0, 0.0, 0.0)]) == 1.0
    # A render that is right to the bit counts, but not without bound.
    assert strength_of([Compared("a", 0.0, -1.0, 4.0)]) == 0.25
    assert strength_of([Compared("a", 1e-9, 0.0, 0.05), Compared("b", 100.0, 60.0, 60.0)]) == 1.0
    assert strength_of([Compared("a", 5.0, -2.0, 4.0)]) == 0.25


def test_what_is_shown_lies_between(noise) -> None:
    truth, of_render, of_fix = noise
    render, fixed = grey(truth + of_render), grey(truth + of_fix)
    assert shown(render, fixed, 1.0) is fixed
    half = shown(render, fixed, 0.5)
    assert half.dtype == np.uint8
    assert np.abs(half.astype(int) - (render.astype(int) + fixed) / 2).max() <= 0.5
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert shown(black, white, 0.99).max() == 252 and shown(white, black, 0.25).max() == 191
