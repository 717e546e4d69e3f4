"""Which pairs get matched, and that photos of one place look alike to VLAD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difix3d.sfm.pairs import (
    EXHAUSTIVE_ORDERED,
    EXHAUSTIVE_UNORDERED,
    LOOP_CLOSURES,
    NEIGHBOURS,
    OVERLAP,
    Pairs,
    choose_pairs,
    exhaustive_pairs,
    joining_pairs,
    retrieval_pairs,
    sequential_pairs,
    vlad,
)


def proper(pairs: Pairs, count: int) -> bool:
    """Smaller row first, sorted, none twice, all rows there."""
    return pairs == sorted(set(pairs)) and all(0 <= first < second < count for first, second in pairs)


def unit_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(count=st.integers(0, 60))
def test_exhaustive_is_every_pair(count: int) -> None:
    pairs = exhaustive_pairs(count)
    assert proper(pairs, count) and len(pairs) == count * (count - 1) // 2


@given(count=st.integers(0, 200), overlap=st.integers(1, 12))
def test_sequential_has_all_near_neighbours_and_some_far_ones(count: int, overlap: int) -> None:
    pairs = sequential_pairs(count, overlap)
    assert proper(pairs, count)
    steps = {second - first for first, second in pairs}
    assert steps == {step for step in {*range(1, overlap + 1), *(2**k for k in range(overlap))} if step < count}
    for step in steps:
        assert sum(second - first == step for first, second in pairs) == count - step


@given(count=st.integers(2, 60), neighbours=st.integers(1, 25), apart=st.integers(1, 15), seed=st.integers(0, 99))
def test_retrieval_gives_each_photo_its_most_similar_ones(count: int, neighbours: int, apart: int, seed: int) -> None:
    descriptors = unit_rows(count, seed)
    pairs = retrieval_pairs(descriptors, neighbours, apart)
    assert proper(pairs, count) and all(second - first >= apart for first, second in pairs)
    similarity = descriptors @ descriptors.T
    for row in range(count):
        others = [other for other in range(count) if abs(other - row) >= apart]
        best = sorted(others, key=lambda other: -similarity[row, other])[:neighbours]
        assert all((min(row, other), max(row, other)) in pairs for other in best)


def test_spots_of_many_near_copies_are_joined_where_they_are_most_alike() -> None:
    """Four spots of 30 photos each; each is a little like the next, and not like the others."""
    rng = np.random.default_rng(0)
    spots = np.eye(8, dtype=np.float32)[:4] + 0.3 * np.eye(8, dtype=np.float32)[1:5]
    rows = np.repeat(spots, 30, axis=0) + rng.normal(0, 0.01, (120, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alone = retrieval_pairs(rows, NEIGHBOURS)
    assert all(first // 30 == second // 30 for first, second in alone), "what this is about"
    matcher, pairs = choose_pairs(120, False, "auto", lambda: rows)
    assert matcher == "retrieval" and proper(pairs, 120) and set(alone) < set(pairs)
    across = {(first // 30, second // 30) for first, second in pairs if first // 30 != second // 30}
    assert across == {(0, 1), (1, 2), (2, 3)}
    assert len(pairs) - len(alone) <= 4 * NEIGHBOURS
    assert joining_pairs(rows, pairs, NEIGHBOURS) == []


@pytest.mark.parametrize(
    ("count", "ordered", "matching", "expected"),
    [
        (EXHAUSTIVE_ORDERED, True, "auto", "exhaustive"),
        (EXHAUSTIVE_ORDERED + 1, True, "auto", "sequential"),
        (EXHAUSTIVE_UNORDERED, False, "auto", "exhaustive"),
        (EXHAUSTIVE_UNORDERED + 1, False, "auto", "retrieval"),
        (10, True, "sequential", "sequential"),
        (200, True, "exhaustive", "exhaustive"),
        (40, True, "retrieval", "retrieval"),
    ],
)
def test_the_matcher_fits_the_capture(count: int, ordered: bool, matching: str, expected: str) -> None:
    compared = []

    def descriptors() -> np.ndarray:
        compared.append(True)
        return unit_rows(count)

    matcher, pairs = choose_pairs(count, ordered, matching, descriptors)
    assert matcher == expected and proper(pairs, count)
    assert bool(compared) == (expected != "exhaustive")  # looking at all photos costs time: only where it is needed
    if expected == "sequential":
        assert set(sequential_pairs(count)) <= set(pairs)
        far = [pair for pair in pairs if pair not in set(sequential_pairs(count))]
        assert len(far) <= LOOP_CLOSURES * count and all(second - first > OVERLAP for first, second in far)
    if expected == "retrieval":
        assert count * NEIGHBOURS / 2 <= len(pairs) <= count * NEIGHBOURS


def test_photos_of_one_place_are_alike_and_the_order_of_their_features_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    places = rng.integers(0, 200, (4, 300, 128))
    photos = [
        np.clip(place + rng.integers(-12, 13, place.shape), 0, 255).astype(np.uint8)[rng.permutation(300)[:250]]
        for place in places
        for _ in range(5)
    ]
    descriptors = vlad(photos, seed=0)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-5)
    similarity = descriptors @ descriptors.T
    np.fill_diagonal(similarity, -1)
    place = np.repeat(np.arange(4), 5)
    nearest = np.argsort(-similarity, axis=1)[:, :4]
    assert (place[nearest] == place[:, None]).all()


def test_a_photo_without_features_is_like_nothing() -> None:
    rng = np.random.default_rng(0)
    some = rng.integers(0, 255, (50, 128)).astype(np.uint8)
    descriptors = vlad([some, np.empty((0, 128), np.uint8), some], seed=0)
    assert not descriptors[1].any() and descriptors[0] @ descriptors[2] == pytest.approx(1, abs=1e-5)
    assert not vlad([np.empty((0, 128), np.uint8)] * 3).any()
    assert len(vlad([])) == 0


def test_vlad_is_the_same_for_the_same_seed() -> None:
    photos = [np.random.default_rng(i).integers(0, 255, (700, 128)).astype(np.uint8) for i in range(4)]
    np.testing.assert_array_equal(vlad(photos, seed=7), vlad(photos, seed=7))
