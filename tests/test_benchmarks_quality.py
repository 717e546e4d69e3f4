"""The quality benchmark: who counts as better, which views are pooled, and which sheets are kept to look at."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from difix3d import metrics
from difix3d.formats.image import read_rgb

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def quality():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("quality")
    finally:
        sys.path.remove(str(BENCHMARKS))


def viewed(quality, number: int, lpips: float, *, scene: str = "a", distance: float = 0.1, dense: bool = False):
    raw = {"psnr": 20.0, "lpips": 0.5, "dists": 0.2, "flip": 0.1}
    fixed = {"psnr": 21.0, "lpips": lpips, "dists": 0.1, "flip": 0.2}
    scores = {"raw": raw, "lite 4": fixed}
    parts = (0.3, 0.2, lpips - 0.2, 0.2)
    return quality.Scored(scene, "every3", dense, f"{number}.jpg", distance, scores, 0.75, parts)


def test_lower_is_better_for_distances_and_higher_for_the_others(quality) -> None:
    found = quality.summary([viewed(quality, number, 0.4) for number in range(4)], "lite 4")
    improved = {name: found[f"{name}_improved"] for name in ("psnr", "lpips", "dists", "flip")}
    assert improved == {"psnr": 1, "lpips": 1, "dists": 1, "flip": 0}
    assert found["lpips_change"] == pytest.approx([-0.2] * 3) and found["flip_change"] == pytest.approx([1.0] * 3)


def test_views_are_pooled_near_and_far_by_scene_and_dense_fits_apart(quality) -> None:
    judged = [
        viewed(quality, 0, 0.4),
        viewed(quality, 1, 0.4, distance=0.6),
        viewed(quality, 2, 0.4, scene="b", distance=0.6),
        viewed(quality, 3, 0.4, scene="b", dense=True),
    ]
    sizes = {name: len(members) for name, members in quality.groups(judged).items()}
    assert sizes == {
        "sparse": 3, "near": 1, "far": 2, "dense": 1,
        "a near": 1, "a far": 1, "b far": 1, "a every3": 2, "b every3": 2,
    }  # fmt: skip


def test_lpips_where_photos_show_something_is_told_apart_from_elsewhere(quality, shared: Path) -> None:
    rng = np.random.default_rng(0)
    photo, other = (cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (256, 192)) for _ in range(2))
    seen = np.arange(256) < 128
    seen = np.broadcast_to(seen, (192, 256))
    fixed = np.where(seen[..., None], photo, other).astype(np.uint8)
    raw_there, raw_elsewhere, there, elsewhere = quality.parts(other, fixed, photo, seen)
    assert raw_there + raw_elsewhere == pytest.approx(metrics.lpips(other, photo), rel=0.05)
    assert there + elsewhere == pytest.approx(metrics.lpips(fixed, photo), rel=0.05)
    assert there < 0.2 * raw_there and elsewhere > 0.8 * raw_elsewhere
    row = next(line for line in quality.told_of_parts([viewed(quality, 0, 0.4)]).splitlines() if "sparse" in line)
    assert row == "| sparse | 75% | 0.300, 0.200 | -33.3% | 0.200, 0.200 |"


def test_half_of_the_sheets_are_the_worst_and_nothing_else_stays(quality, tmp_path: Path) -> None:
    pictures = quality.Pictures(tmp_path / "worst")
    judged = [viewed(quality, number, 0.30 + 0.05 * number) for number in range(8)]
    for number, one in enumerate(judged):
        photo, raw, fixed = (np.full((6, 8, 3), shade + number, np.uint8) for shade in (0, 100, 200))
        pictures.keep(one, photo, raw, fixed)
    (tmp_path / "worst" / "drawn07_+01pc_b-half-1.png").write_bytes(b"of an earlier run")
    names = [path.name for path in pictures.choose(judged, "lite 4", 4)]
    assert names[:2] == ["worst01_+30pc_a-every3-7.png", "worst02_+20pc_a-every3-6.png"]
    assert len(names) == 4 and all(name.startswith("drawn") for name in names[2:])
    assert {path.name for path in (tmp_path / "worst").iterdir()} == set(names)
    sheet = read_rgb(tmp_path / "worst" / names[0])
    assert sheet.shape == (6, 24, 3) and [int(sheet[0, x, 0]) for x in (0, 8, 16)] == [7, 107, 207]
