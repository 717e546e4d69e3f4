"""The depth that photos are carried by, on walls whose depth is known: the photo's own where the frame's is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import walls
from walls_seen import reference_at, soft_frame

from difix3d.fixers.alignment import align_photo
from difix3d.fixers.surface import Surface, depth_from, surface_for
from difix3d.fixers.target import Source, Target
from difix3d.metrics import psnr
from difix3d.types import Frame, Reference

WIDTH, HEIGHT = 360, 270
FLOATER = (slice(60, 200), slice(240, 320))
SMALL_FLOATER = (slice(34, 96), slice(124, 156))
"""Its inside, at half size."""


@pytest.fixture(scope="module")
def frame() -> Frame:
    return soft_frame(WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def behind_floater(frame: Frame) -> Frame:
    """Depth says that something hangs halfway before the back wall."""
    depth = frame.depth.copy()
    depth[FLOATER] *= np.float32(0.5)
    return replace(frame, depth=depth)


def surface(frame: Frame, reference: Reference) -> Surface:
    target = Target.of(frame)
    return surface_for(target, Source.of(target, reference))


def off(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(found / true - 1)


def test_a_floater_is_looked_through_where_the_photo_sees_what_is_behind(frame: Frame, behind_floater: Frame) -> None:
    reference = reference_at(0.15, WIDTH, HEIGHT)
    found = surface(behind_floater, reference)
    assert off(found.small_depth, frame.depth[::2, ::2])[SMALL_FLOATER].max() < 0.02
    assert off(found.depth, frame.depth)[70:190, 250:310].max() < 0.02
    own = surface(behind_floater, replace(reference, depth=None))
    assert off(own.depth, frame.depth)[70:190, 250:310].min() > 0.4


def test_a_photo_carried_so_shows_what_is_behind(frame: Frame, behind_floater: Frame) -> None:
    target = Target.of(behind_floater)
    source = Source.of(target, reference_at(0.15, WIDTH, HEIGHT))
    truth = walls.see(frame.camera).photo
    own = surface_for(target, replace(source, small_depth=None))
    shown, before = (align_photo(target, source, each) for each in (surface_for(target, source), own))
    assert shown is not None and before is not None
    inside = (slice(70, 190), slice(250, 310))

    def quality(rgb: np.ndarray) -> float:
        return psnr(rgb[inside], truth[inside])

    assert quality(shown.rgb) > quality(before.rgb) + 3
    assert shown.confidence[inside].mean() > 0.5 > 5 * before.confidence[inside].mean()


def test_where_both_agree_the_frames_depth_stays(frame: Frame) -> None:
    reference = reference_at(0.15, WIDTH, HEIGHT)
    off_by_little = replace(reference, depth=reference.depth * np.float32(1.02))
    assert np.median(off(surface(frame, off_by_little).depth, frame.depth)) < 0.002
    off_by_more = replace(reference, depth=reference.depth * np.float32(1.06))
    assert np.median(off(surface(frame, off_by_more).depth, frame.depth)) > 0.03


def test_a_photo_whose_depth_is_far_too_near_is_carried_by_the_frames(frame: Frame) -> None:
    reference = reference_at(0.15, WIDTH, HEIGHT)
    blob = reference.depth.copy()
    blob[FLOATER] *= np.float32(0.4)
    usual = surface(frame, reference).depth

    def changed() -> float:
        return float((off(surface(frame, replace(reference, depth=blob)).depth, usual) > 0.1).mean())

    assert changed() < 0.002
    blob[FLOATER] *= np.float32(2.0)  # 0.8 of the true one: it may as well be the frame's that is wrong
    assert changed() > 0.05


def test_what_the_photo_does_not_see_stays_too(behind_floater: Frame) -> None:
    away = reference_at(0.15, WIDTH, HEIGHT)
    away = replace(away, camera=away.camera.moved(np.diag([-1.0, 1.0, -1.0, 1.0]) @ away.camera.cam_from_world))
    own = surface(behind_floater, replace(away, depth=None))
    assert np.median(off(surface(behind_floater, away).depth, own.depth)) < 0.001


def test_where_the_frame_has_no_depth_there_is_none(frame: Frame) -> None:
    depth = frame.depth.copy()
    depth[FLOATER] = 0
    found = surface(replace(frame, depth=depth), reference_at(0.15, WIDTH, HEIGHT))
    assert not found.depth[FLOATER].any() and (found.depth[:50] > 0).all()
    assert not surface(replace(frame, depth=0 * depth), reference_at(0.15, WIDTH, HEIGHT)).small_depth.any()


@pytest.mark.parametrize("size", [160, 360])
def test_small_frames_are_judged_at_their_own_size(size: int) -> None:
    frame = soft_frame(size, size)
    found = surface(frame, reference_at(0.1, size, size))
    assert found.depth.shape == (size, size)
    assert found.small_depth.shape == ((size, size) if size == 160 else (size // 2, size // 2))
    assert np.median(off(found.depth, frame.depth)) < 0.01


def test_depth_seen_from_elsewhere() -> None:
    here, there = (walls.camera_at(x, width=120, height=90) for x in (0.0, 0.2))
    seen = depth_from(here, there, walls.see(there).depth)
    true = walls.see(here).depth
    known = seen > 0
    assert seen.shape == true.shape and seen.dtype == np.float32
    assert known.mean() > 0.8 and np.median(off(seen[known], true[known])) < 0.01


def test_the_nearest_of_what_falls_on_one_pixel_and_nothing_elsewhere() -> None:
    camera = walls.camera_at(0.0, width=40, height=30)
    depth = np.zeros((30, 40), np.float32)
    assert not depth_from(camera, camera, depth).any()
    depth[10:20, 10:20] = 3.0
    depth[15, 15] = 2.0
    seen = depth_from(camera, camera, depth)
    assert seen[15, 15] == pytest.approx(2.0) and seen[12, 12] == pytest.approx(3.0)
    assert not seen[:8].any() and not seen[:, 24:].any()
    away = camera.moved(np.diag([-1.0, 1.0, -1.0, 1.0]) @ camera.cam_from_world)
    assert not depth_from(away, camera, depth).any()
