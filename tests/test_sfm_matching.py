"""Pairs are matched in parts at once, and the database is none the wiser: 16 photos of the courtyard."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from courtyard import ingested, photo_paths

from difix3d.sfm import features
from difix3d.sfm.base import PhotoSet, SfmSettings
from difix3d.sfm.matching import match
from difix3d.sfm.pairs import exhaustive_pairs
from difix3d.stages.reconstruct import read_photos

PAIRS = exhaustive_pairs(16)
Held = dict[tuple[int, int], tuple[Any, ...]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    found = read_photos(ingested(tmp_path_factory.mktemp("matching") / "scene", photo_paths()[:16]))
    assert len(found.photos) == 16
    return found


@pytest.fixture(scope="module")
def extracted(photos: PhotoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "database.db"
    features.create_database(path, photos)
    detail = replace(features.Detail(), features=600)
    assert list(features.extract(path, photos, detail, SfmSettings(threads=2)))
    return path


def held(path: Path) -> Held:
    """Of every pair that was matched: its matches, what kind of geometry fits, and which matches do."""
    with features.open_database(path) as database:
        ids = sorted(image.image_id for image in database.read_all_images())
        return {
            (a, b): (
                np.asarray(database.read_matches(a, b)).tolist(),
                int(database.read_two_view_geometry(a, b).config),
                np.asarray(database.read_two_view_geometry(a, b).inlier_matches).tolist(),
            )
            for a in ids
            for b in ids
            if a < b and database.exists_matches(a, b)
        }


def matched(extracted: Path, photos: PhotoSet, folder: Path, threads: int, *pairs: list[tuple[int, int]]) -> Path:
    path = folder / "database.db"
    folder.mkdir()
    shutil.copyfile(extracted, path)
    for some in pairs or (PAIRS,):
        for said in match(path, photos, some, SfmSettings(threads=threads)):
            assert 0 <= said.done <= said.total == len(some)
    return path


def test_in_parts_is_as_in_one_go(extracted: Path, photos: PhotoSet, tmp_path: Path) -> None:
    one = held(matched(extracted, photos, tmp_path / "one", 1))
    assert len(one) == len(PAIRS) and sum(len(inliers) for _, _, inliers in one.values()) > 1000
    assert any(not inliers for _, _, inliers in one.values())  # pairs without any are known to have none
    for threads in (2, 3):
        path = matched(extracted, photos, tmp_path / f"{threads}", threads)
        assert held(path) == one
        assert not list(path.parent.glob("*part*.db"))


def test_what_is_matched_is_not_matched_again(extracted: Path, photos: PhotoSet, tmp_path: Path) -> None:
    one = held(matched(extracted, photos, tmp_path / "one", 1))
    path = matched(extracted, photos, tmp_path / "two", 2, PAIRS[:50], PAIRS, PAIRS)
    assert held(path) == one


def test_closing_leaves_no_copies(extracted: Path, photos: PhotoSet, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    shutil.copyfile(extracted, path)
    work = match(path, photos, PAIRS, SfmSettings(threads=2))
    next(work)
    assert list(tmp_path.glob("*part*.db"))
    work.close()
    assert not list(tmp_path.glob("*part*.db"))
