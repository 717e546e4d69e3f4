"""Which photos are fitted and which cameras rendered: nothing is its own answer, halves lie apart, limits hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difix3d.pairs.plan import MIN_FITTED, STRATEGIES, Captured, plan_fits, thinned


def walk(count: int, **facts) -> list[Captured]:
    """Photos along a gently bent path."""
    steps = np.linspace(0, 1, max(count, 1))
    return [
        Captured(f"{index:05d}.jpg", np.array([at, 0.1 * np.sin(3 * at), 0.0]), **facts)
        for index, at in enumerate(steps[:count])
    ]


@given(
    count=st.integers(0, 60),
    strategies=st.sets(st.sampled_from(STRATEGIES), min_size=1),
    every=st.lists(st.integers(2, 9), min_size=1, max_size=3, unique=True),
    most=st.integers(1, 300),
)
def test_no_photo_is_both_seen_and_asked_for(count: int, strategies: set[str], every: list[int], most: int) -> None:
    plan = plan_fits(walk(count), strategies, every=every)
    for fit in plan.fits:
        assert len(fit.fitted) >= MIN_FITTED and fit.shots
        if not fit.cycle:
            assert not set(fit.fitted) & {shot.photo for shot in fit.shots}
        assert {shot.strategy for shot in fit.shots} <= strategies
        assert len({(shot.photo, shot.stop) for shot in fit.shots}) == len(fit.shots)
    assert len({fit.name for fit in plan.fits}) == len(plan.fits)

    few = thinned(plan, most)
    assert few.shots == min(plan.shots, most)
    kept = {fit.name: fit for fit in few.fits}
    assert all(set(kept[fit.name].shots) <= set(fit.shots) for fit in plan.fits if fit.name in kept)
    if most >= len(plan.fits):
        assert set(kept) == {fit.name for fit in plan.fits} or plan.shots > most


def test_limits_are_spread_over_all_fits() -> None:
    plan = plan_fits(walk(40))
    few = thinned(plan, plan.shots // 2)
    for whole, half in zip(plan.fits, few.fits):
        assert whole.name == half.name and abs(len(half.shots) - len(whole.shots) / 2) <= 1


def test_dense_holds_out_photos_between_others() -> None:
    (fit,) = plan_fits(walk(17), ("dense",)).fits
    assert [shot.photo for shot in fit.shots] == ["00004.jpg", "00012.jpg"] and len(fit.fitted) == 15


def test_underfit_stops_each_photo_once_and_in_turn() -> None:
    stops = (0.3, 0.6)
    both = plan_fits(walk(20), ("sparse", "underfit"), every=(2,), stops=stops)
    (fit,) = both.fits
    early = [shot for shot in fit.shots if shot.strategy == "underfit"]
    assert [shot.stop for shot in early] == [0.3, 0.6] * 5
    assert {shot.photo for shot in early} == {shot.photo for shot in fit.shots if shot.stop == 1.0}
    (alone,) = plan_fits(walk(20), ("underfit",), every=(2,), stops=stops).fits
    assert alone.shots == tuple(early) and alone.fitted == fit.fitted


@given(seed=st.integers(0, 1000), count=st.integers(2 * MIN_FITTED, 40))
def test_halves_lie_apart_whatever_the_photos_are_called(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    along = np.sort(rng.uniform(-3, 3, count))
    photos = [
        Captured(f"{name}.jpg", np.array([at, *rng.normal(scale=0.05, size=2)]))
        for name, at in zip(rng.permutation(1000)[:count], along)
    ]
    at = {photo.name: photo.position[0] for photo in photos}
    fits = plan_fits(photos, ("halves",)).fits
    assert len(fits) == 2
    for fit in fits:
        seen, asked = [at[name] for name in fit.fitted], [at[shot.photo] for shot in fit.shots]
        assert max(seen) < min(asked) + 0.2 or min(seen) > max(asked) - 0.2  # 0.2: four times what they stray by


@pytest.mark.parametrize(
    ("trait", "first", "second"),
    [
        ("camera", {"camera": "Canon"}, {"camera": "Huawei"}),
        ("session", {"source": "frame_00012.png"}, {"source": "frame_1_00012.png"}),
        ("size", {"size": (960, 720)}, {"size": (960, 540)}),
    ],
)
def test_cameras_and_sessions_are_told_apart(trait: str, first: dict, second: dict) -> None:
    photos = [replace(photo, **(first if index % 2 else second)) for index, photo in enumerate(walk(12))]
    plan = plan_fits(photos, ("cross",))
    assert [fit.name for fit in plan.fits] == [f"cross-{trait}1", f"cross-{trait}2"] and not plan.skipped
    one, other = plan.fits
    assert set(one.fitted) == {shot.photo for shot in other.shots} and len(one.fitted) == 6


def test_folders_are_sessions_and_an_upright_photo_is_of_the_same_camera() -> None:
    photos = walk(12)
    in_folders = [replace(photo, name=f"{'ab'[index % 2]}/{photo.name}") for index, photo in enumerate(photos)]
    assert [fit.name for fit in plan_fits(in_folders, ("cross",)).fits] == ["cross-folder1", "cross-folder2"]
    turned = [replace(photo, size=(960, 720)[:: 1 if index % 2 else -1]) for index, photo in enumerate(photos)]
    plan = plan_fits(turned, ("cross",))
    assert not plan.fits and "one camera" in plan.skipped["cross"]


def test_what_is_too_small_is_said() -> None:
    plan = plan_fits(walk(9), ("sparse", "halves"), every=(2, 5))
    assert [fit.name for fit in plan.fits] == ["every2", "half1", "half2"]
    assert "2 of 9 photos" in plan.skipped["every5"]
