"""What every fixer of the table must do, whatever it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import walls

from difix3d.errors import FixerError
from difix3d.fixers import DEFAULT_FIXER, FIXERS, load_fixer
from difix3d.fixers.base import Fixer
from difix3d.types import Frame, Reference

SIZE = (64, 48)


@pytest.fixture(params=FIXERS)
def fixer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fixer:
    """difix runs on the recorded tiny checkpoint: the published one is a download of gigabytes."""
    if request.param.startswith("difix"):
        shared = request.getfixturevalue("shared")
        monkeypatch.setenv("DIFIX3D_FIXER", str(shared / "golden" / "checkpoint_difix_ref"))
    return load_fixer(request.param)


def frame_at(x: float, width: int = SIZE[0], height: int = SIZE[1]) -> Frame:
    camera = walls.camera_at(x, width=width, height=height)
    seen = walls.see(camera)
    return Frame("test", 3, camera, seen.photo, np.ones_like(seen.depth), seen.depth)


def reference_at(x: float, size: tuple[int, int] = SIZE) -> Reference:
    camera = walls.camera_at(x, width=size[0], height=size[1])
    seen = walls.see(camera)
    return Reference(f"{x}.png", camera, seen.photo, seen.depth)


def test_it_says_what_it_is(fixer: Fixer) -> None:
    assert isinstance(fixer, Fixer)
    assert fixer.name and fixer.licence
    assert isinstance(fixer.max_references, int) and fixer.max_references >= 0
    assert isinstance(fixer.needs_depth, bool)
    assert json.loads(json.dumps(fixer.settings)) == fixer.settings
    demands = fixer.demands(640, 480)
    assert fixer.device() in ("cpu", "cuda") and demands.download_bytes == 0
    assert list(fixer.fetch()) == [], "everything is here"
    fixer.load()


@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_picture_of_the_frames_size_comes_back(fixer: Fixer, count: int) -> None:
    frame = frame_at(0.0)
    references = [reference_at(0.1 * (index + 1)) for index in range(count)]
    fixed = fixer.fix(frame, references)
    assert fixed.dtype == np.uint8 and fixed.shape == frame.rgb.shape


def test_odd_sizes_and_references_of_other_sizes(fixer: Fixer) -> None:
    frame = frame_at(0.0, 75, 53)
    fixed = fixer.fix(frame, [reference_at(0.2, (120, 90)), reference_at(-0.2, (40, 30))])
    assert fixed.shape == (53, 75, 3)


def test_the_same_again_is_the_same_and_nothing_is_changed(fixer: Fixer) -> None:
    frame, references = frame_at(0.0), [reference_at(0.15)]
    before = frame.rgb.copy(), frame.depth.copy(), references[0].rgb.copy()
    first, second = fixer.fix(frame, references, seed=5), fixer.fix(frame, references, seed=5)
    assert np.array_equal(first, second)
    assert all(np.array_equal(a, b) for a, b in zip(before, (frame.rgb, frame.depth, references[0].rgb)))


def test_more_references_than_it_can_use_are_ignored(fixer: Fixer) -> None:
    frame = frame_at(0.0)
    references = [reference_at(0.1 * (index + 1)) for index in range(fixer.max_references + 2)]
    few, many = fixer.fix(frame, references[: fixer.max_references]), fixer.fix(frame, references)
    assert np.array_equal(few, many)


def test_difix_refuses_pictures_that_are_not_bytes(shared: Path) -> None:
    frame = frame_at(0.0)
    floats = np.full(frame.rgb.shape, np.nan, np.float32)
    fixer = load_fixer(str(shared / "golden" / "checkpoint_difix_ref"))
    with pytest.raises(FixerError, match=r"frame\.rgb: expected uint8"):
        fixer.fix(Frame("test", 0, frame.camera, floats, frame.alpha, frame.depth), [])


def test_the_default_is_in_the_table_and_unknown_names_are_refused() -> None:
    assert DEFAULT_FIXER in FIXERS
    with pytest.raises(FixerError, match="reproject"):
        load_fixer("photoshop")
