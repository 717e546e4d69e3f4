"""Fixing in two steps gives what fixing at once gives, and one photo more asks for that one alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import walls
import walls_seen
from walls_seen import quick_fixer, soft_frame

from difix3d.fixers.coverage import coverage, covered_share
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.fixers.stepwise import CarriedPhotos, Stepwise, SupersededError
from difix3d.types import Frame, Reference

WIDTH, HEIGHT = 96, 72


@pytest.fixture(scope="module")
def frame() -> Frame:
    return soft_frame(WIDTH, HEIGHT)


def reference_at(x: float) -> Reference:
    return walls_seen.reference_at(x, WIDTH, HEIGHT)


@pytest.fixture(scope="module", params=["reproject", "lite"])
def fixer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return quick_fixer(request.param, tmp_path_factory.mktemp("fixer"))


class Counting(ReprojectFixer):
    """Remembers which photos were carried."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[str] = []

    def carry(self, frame, reference):
        self.carried.append(reference.name)
        return super().carry(frame, reference)


def test_two_steps_give_what_one_gives(fixer, frame: Frame) -> None:
    assert isinstance(fixer, Stepwise)
    away = replace(reference_at(0.2), camera=walls.camera_at(50.0, width=WIDTH, height=HEIGHT))
    photos = [reference_at(0.1), away, reference_at(-0.2), reference_at(0.3), reference_at(-0.4), reference_at(0.5)]
    for count in (0, 1, 2, 4, 6):
        fixed, trust = fixer.finish(frame, [fixer.carry(frame, one) for one in photos[:count]])
        whole, whole_trust = fixer.fix_with_trust(frame, photos[:count])
        assert np.array_equal(fixed, whole) and np.array_equal(trust, whole_trust)
        assert np.array_equal(whole, fixer.fix(frame, photos[:count]))
        assert trust.shape == fixed.shape[:2] and trust.min() >= 0 and trust.max() <= 1


def test_trust_of_reproject_is_where_it_changed_the_render(frame: Frame) -> None:
    fixed, trust = ReprojectFixer().fix_with_trust(frame, [reference_at(0.3)])
    changed = np.abs(fixed.astype(int) - frame.rgb).max(axis=2)
    assert trust.max() > 0.9 and changed[trust == 0].max(initial=0) <= 1


def test_one_photo_more_carries_that_one_alone(frame: Frame) -> None:
    fixer, kept = Counting(), CarriedPhotos(8)
    places = {"a": 0.1, "b": -0.2, "c": 0.3}

    def wanted(names: str):
        return [(name, lambda name=name: replace(reference_at(places[name]), name=name)) for name in names]

    first, _ = kept.fix(fixer, frame, wanted("ab"))
    assert sorted(fixer.carried) == ["a", "b"]
    kept.fix(fixer, frame, wanted("abc"))
    assert fixer.carried[2:] == ["c"]
    again, _ = kept.fix(fixer, frame, wanted("ab"))
    kept.fix(fixer, frame, wanted("cb"))
    assert len(fixer.carried) == 3 and np.array_equal(first, again)


def test_nobody_works_on_when_nobody_waits(frame: Frame) -> None:
    fixer, kept = Counting(), CarriedPhotos(8)
    answers = iter([False, False, True])
    with pytest.raises(SupersededError):
        kept.fix(fixer, frame, [("a", lambda: reference_at(0.1))], lambda: next(answers))
    assert fixer.carried == ["0.1.png"]
    kept.fix(fixer, frame, [("a", lambda: reference_at(0.1))])
    assert len(fixer.carried) == 1, "what was done until then is kept"


def test_coverage_is_the_part_of_the_frame_that_a_photo_shows(frame: Frame) -> None:
    camera, depth = frame.camera, frame.depth

    def covers(x: float, turned: bool = False) -> np.ndarray:
        reference = reference_at(x)
        behind = reference.camera.moved(np.diag([-1.0, 1, -1, 1]) @ reference.camera.cam_from_world)
        return coverage(camera, depth, behind if turned else reference.camera, reference.depth, frame.alpha)

    same, near, away = covers(0.0), covers(0.3), covers(0.0, turned=True)
    assert covered_share([same]) > 0.9 > covered_share([near]) > 0.3
    assert covered_share([away]) == 0 == covered_share([])
    assert covered_share([near, covers(-0.3)]) > covered_share([near])
    assert covered_share([near, away]) == covered_share([near])
