"""Which mappers are tried on which photos, in which order, and what of it is kept. The mappers are stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before pycolmap, as everywhere
import pytest
from generators import returned

from difix3d.sfm import colmap
from difix3d.sfm.background import Spent
from difix3d.sfm.base import Photo, PhotoSet, SfmSettings
from difix3d.sfm.mapping import NARROW_DEG, WIDE_DEG

COUNT = 10
Call = tuple[str, bool, float]
GROWN, HELD, PLACED = ("incremental", False, NARROW_DEG), ("incremental", True, NARROW_DEG), ("global", False, WIDE_DEG)
WIDE = ("incremental", False, WIDE_DEG)


@dataclass(frozen=True)
class Made:
    """What a mapper is told to have made: all that the choice among models looks at."""

    registered: int
    error_px: float = 0.4
    drift: float = 1.0
    flat: bool = False


Models = dict[Call, Made | None]
Run = Callable[..., tuple[Made | None, list[Call]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """(what is kept, what was called) of photos whose widest pairs see under `apart_deg`."""

    def map_best(
        apart_deg: float, models: Models, mapper: str = "auto", exif: bool = False, drawn: Made | None = None
    ) -> tuple[Made | None, list[Call]]:
        called: list[Call] = []

        def made(_: Any, name: str, hold: bool, first_deg: float = WIDE_DEG) -> Generator[None, None, Made | None]:
            called.append((name, hold, first_deg))
            return models.get(called[-1])
            yield

        def with_focals(*_: Any) -> Generator[None, None, Made | None]:
            called.append(("drawn out", True, 0.0))
            return drawn
            yield

        monkeypatch.setattr(colmap._Run, "_map", made)
        monkeypatch.setattr(colmap, "angle_apart_deg", lambda *_: apart_deg)
        monkeypatch.setattr(colmap.mapping, "focal_drift", lambda model, _: model.drift if exif else None)
        monkeypatch.setattr(colmap, "is_flat_and_parallel", lambda model: model.flat)
        monkeypatch.setattr(colmap, "with_focals", with_focals)
        monkeypatch.setattr(colmap.features, "exif_focals_px", lambda _: {})
        photos = tuple(Photo(f"{row}.jpg", 960, 640, focal_px=800.0 if exif else None) for row in range(COUNT))
        settings = SfmSettings(mapper=mapper)
        return returned(
            colmap._Run(PhotoSet(tmp_path, photos), tmp_path / "run", settings, Spent("map")).map_best()
        ), called

    return map_best


ALL, HALF = Made(COUNT), Made(COUNT // 2)


@pytest.mark.parametrize("apart_deg", [0.0, 7.0, 30.0])
def test_photos_apart_are_grown_and_what_is_good_ends_it(run: Run, apart_deg: float) -> None:
    first = WIDE if apart_deg >= WIDE_DEG else GROWN
    assert run(apart_deg, {first: ALL, HELD: HALF, PLACED: HALF}) == (ALL, [first])
    assert run(apart_deg, {first: HALF, HELD: ALL}) == (ALL, [first, HELD])
    assert run(apart_deg, {first: None, HELD: HALF, PLACED: ALL}) == (ALL, [first, HELD, PLACED])
    assert run(apart_deg, {first: HALF}) == (HALF, [first, HELD, PLACED])


def test_photos_close_together_are_placed_at_once_first(run: Run) -> None:
    assert run(2.0, {PLACED: ALL}) == (ALL, [PLACED])
    assert run(2.0, {PLACED: HALF, HELD: ALL}) == (ALL, [PLACED, GROWN, HELD])
    assert run(2.0, {}) == (None, [PLACED, GROWN, HELD])


def test_a_focal_length_that_strayed_is_looked_for_the_other_way(run: Run) -> None:
    poor, close = Made(COUNT, colmap.STRAYED_PX + 0.1), Made(COUNT, 0.5)
    assert run(30.0, {WIDE: poor, PLACED: close}) == (close, [WIDE, PLACED])
    assert run(30.0, {WIDE: poor, PLACED: Made(COUNT - 1, 0.5)}) == (poor, [WIDE, PLACED])
    assert run(2.0, {PLACED: poor, GROWN: close}) == (close, [PLACED, GROWN])
    assert run(30.0, {WIDE: poor, PLACED: close}, exif=True) == (poor, [WIDE])


def test_a_mapper_that_is_asked_for_is_the_only_one(run: Run) -> None:
    assert run(2.0, {GROWN: HALF, PLACED: ALL}, mapper="incremental") == (HALF, [GROWN, HELD])
    assert run(30.0, {WIDE: ALL, PLACED: HALF}, mapper="global") == (HALF, [PLACED])


def test_exif_holds_the_focal_length_where_a_refined_one_is_in_doubt(run: Run) -> None:
    held = ("incremental", True, WIDE_DEG)
    strayed, flat = Made(COUNT, drift=2 * colmap.DRIFT), Made(COUNT, flat=True)
    assert run(30.0, {WIDE: strayed, held: ALL}, exif=True) == (ALL, [WIDE, held])
    assert run(30.0, {WIDE: strayed, held: Made(COUNT, 1.0)}, exif=True) == (strayed, [WIDE, held])
    assert run(30.0, {WIDE: strayed, held: HALF}, exif=True) == (strayed, [WIDE, held])
    assert run(30.0, {WIDE: flat}, exif=True, drawn=ALL) == (ALL, [WIDE, ("drawn out", True, 0.0)])
    far_off = Made(COUNT, 1.0)
    drawn_and_mapped = [WIDE, ("drawn out", True, 0.0), held]
    assert run(30.0, {WIDE: flat, held: ALL}, exif=True, drawn=far_off) == (ALL, drawn_and_mapped)
    assert run(30.0, {WIDE: flat}) == (flat, [WIDE])
