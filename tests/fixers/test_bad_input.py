"""Bad input for the fixers that carry photos by depth: something sensible or words, and numbers in every pixel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import walls
import walls_seen
from walls_seen import quick_fixer, soft_frame

from difix3d.errors import FixerError, ShapeError
from difix3d.metrics import psnr
from difix3d.types import Frame, Reference

WIDTH, HEIGHT = 160, 120
Case = Callable[[Frame, Reference], tuple[Frame, Reference]]


def frame_at(width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return soft_frame(width, height, index=4)


def reference_at(x: float, width: int = WIDTH, height: int = HEIGHT) -> Reference:
    return walls_seen.reference_at(x, width, height)


@pytest.fixture(scope="module", params=["reproject", "lite"])
def fixer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return quick_fixer(request.param, tmp_path_factory.mktemp("fixer"))


@pytest.fixture(autouse=True)
def numbers_only() -> Iterator[None]:
    """NaN that is cast, and squares that overflow, are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def block(values: np.ndarray, value: float) -> np.ndarray:
    """A third of the map replaced."""
    changed = values.copy()
    changed[40:80, 30:110] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, 1e30])
def test_depth_that_is_none_costs_only_its_own_pixels(fixer, value: float) -> None:
    frame, photo = frame_at(), reference_at(0.2)
    truth = walls.see(frame.camera).photo
    fixed, trust = fixer.fix_with_trust(replace(frame, depth=block(frame.depth, value)), [photo])
    assert np.isfinite(trust).all() and trust.min() >= 0 and trust.max() <= 1
    assert np.abs(fixed[46:74, 36:104].astype(int) - frame.rgb[46:74, 36:104]).max() <= 1
    outside = np.s_[:30]
    assert psnr(fixed[outside], truth[outside]) > psnr(frame.rgb[outside], truth[outside]) + 1
    photo = replace(photo, depth=block(photo.depth, value))
    assert psnr(fixer.fix(frame, [photo])[outside], truth[outside]) > psnr(frame.rgb[outside], truth[outside]) + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0, -1.0])
def test_alpha_that_is_no_share(fixer, value: float) -> None:
    frame = frame_at()
    fixed, trust = fixer.fix_with_trust(replace(frame, alpha=block(frame.alpha, value)), [reference_at(0.2)])
    assert fixed.shape == frame.rgb.shape and np.isfinite(trust).all()


def test_a_photo_of_one_colour_changes_nothing(fixer) -> None:
    """A lens cap agrees with every plain wall."""
    frame, photo = frame_at(), reference_at(0.2)
    for colour in (0, 90, 255):
        blank = replace(photo, rgb=np.full_like(photo.rgb, colour))
        assert np.abs(fixer.fix(frame, [blank]).astype(int) - frame.rgb).max() <= 1
        both = fixer.fix(frame, [blank, reference_at(-0.2)])
        assert np.array_equal(both, fixer.fix(frame, [reference_at(-0.2)]))


@pytest.mark.parametrize("colour", [0, 255])
def test_a_render_of_one_colour_gives_a_picture(fixer, colour: int) -> None:
    frame = frame_at()
    blank = replace(frame, rgb=np.full_like(frame.rgb, colour), alpha=np.zeros_like(frame.alpha))
    fixed, trust = fixer.fix_with_trust(blank, [reference_at(0.2)])
    assert fixed.shape == frame.rgb.shape and np.isfinite(trust).all()


def test_photos_of_other_sizes_and_exposures(fixer) -> None:
    frame, photo = frame_at(), reference_at(0.2, 480, 360)
    truth = walls.see(frame.camera).photo
    dark = (photo.rgb * 0.7).astype(np.uint8)
    assert psnr(fixer.fix(frame, [replace(photo, rgb=dark)]), truth) > psnr(frame.rgb, truth) + 0.5
    small = reference_at(0.2, 4, 3)
    assert np.abs(fixer.fix(frame, [small]).astype(int) - frame.rgb).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 1)])
def test_the_smallest_frames(fixer, size: tuple[int, int]) -> None:
    frame = frame_at(*size)
    fixed, trust = fixer.fix_with_trust(frame, [reference_at(0.2)])
    assert fixed.shape == (size[1], size[0], 3) and np.isfinite(trust).all()


def test_frames_of_4000_pixels(fixer) -> None:
    camera = walls.camera_at(0.0, width=4000, height=64)
    seen = walls.see(camera)
    frame = Frame("test", 0, camera, seen.photo // 2, np.ones_like(seen.depth), seen.depth)
    fixed, trust = fixer.fix_with_trust(frame, [reference_at(0.2)])
    assert fixed.shape == (64, 4000, 3) and np.isfinite(trust).all()


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (FixerError, r"frame\.rgb: expected uint8", lambda f, r: (replace(f, rgb=np.full(f.rgb.shape, np.nan)), r)),
        (FixerError, r"photo 0\.2\.png: expected uint8", lambda f, r: (f, replace(r, rgb=r.rgb / 255.0))),
        (ShapeError, r"frame\.depth", lambda f, r: (replace(f, depth=f.depth[:-1]), r)),
        (ShapeError, r"frame\.alpha", lambda f, r: (replace(f, alpha=f.alpha[:-1]), r)),
        (ShapeError, r"photo 0\.2\.png", lambda f, r: (f, replace(r, rgb=r.rgb[:-1]))),
        (ShapeError, r"depth of photo 0\.2\.png", lambda f, r: (f, replace(r, depth=r.depth[:-1]))),
    ],
)
def test_what_is_no_picture_is_refused_by_name(fixer, error: type[Exception], words: str, change: Case) -> None:
    frame, photo = change(frame_at(), reference_at(0.2))
    with pytest.raises(error, match=words):
        fixer.fix(frame, [photo])
