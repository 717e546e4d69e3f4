"""Numbered names and shared features tell a walk from a pile of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from difix3d.formats.overlap import OverlapCounter, natural_key, numbered_in_sequence
from difix3d.formats.photos import read_photo


def test_natural_order() -> None:
    names = ["IMG_10.jpg", "img_9.jpg", "IMG_1.jpg", "a.jpg", "02.jpg", "1.jpg", "²³.jpg", "photo.jpg"]
    ordered = sorted(names, key=natural_key)
    assert ordered[:2] == ["1.jpg", "02.jpg"]
    assert [name for name in ordered if "mg" in name.lower()] == ["IMG_1.jpg", "img_9.jpg", "IMG_10.jpg"]


@pytest.mark.parametrize(
    ("stems", "is_walk"),
    [
        (["IMG_0012", "IMG_0013", "IMG_0015"], True),
        (["00", "01", "02"], True),
        (["20240501_101112", "20240501_101115", "20240501_101119"], True),
        (["a", "b", "c"], False),
        (["1", "5000", "90000"], False),
        (["2", "2", "3"], False),
        (["7"], False),
        ([], False),
    ],
)
def test_numbers_going_up(stems: list[str], is_walk: bool) -> None:
    assert numbered_in_sequence(stems) is is_walk


def share(folder: Path, count: int) -> float:
    counter = OverlapCounter()
    for path in sorted(folder.iterdir())[:count]:
        counter.add(read_photo(path, 640).rgb)
    return counter.share


def test_a_walk_overlaps_and_a_pile_does_not(shared: Path) -> None:
    scenes = shared / "scenes"
    assert share(scenes / "train/plush/images", 8) == 1.0
    assert share(scenes / "dev/panel17/images", 8) == 1.0
    assert share(scenes / "bad/unrelated_photos", 8) <= 0.2
    assert share(scenes / "bad/textureless", 8) == 0.0


def test_nothing_to_compare() -> None:
    counter = OverlapCounter()
    assert counter.share == 0.0
    counter.add(np.zeros((64, 64, 3), np.uint8))
    counter.add(np.zeros((64, 64, 3), np.uint8))
    assert counter.share == 0.0
