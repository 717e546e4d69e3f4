"""Photos carried in patches, on walls with torn depth: to about the right place, in one piece, judged by colour.

The photos have no depth of their own here, which would mend what is torn (test_photo_surface.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_opening
from walls_seen import reference_at, soft_frame

from difix3d.fixers.alignment import align_photo
from difix3d.fixers.lite.planes import planes_of
from difix3d.fixers.loose import PATCH_PX, carry_loosely, patch_depth
from difix3d.fixers.photometric import gaussian
from difix3d.fixers.surface import surface_for
from difix3d.fixers.target import Source, Target
from difix3d.metrics import psnr
from difix3d.types import Frame, Reference

WIDTH, HEIGHT = 360, 270
TORN = (slice(20, 250), slice(230, 340))
"""Of the back wall alone."""


@pytest.fixture(scope="module")
def frame() -> Frame:
    """Blurred, and its depth is anything from half to twice the true one in a third of the blocks of TORN."""
    seen = soft_frame(WIDTH, HEIGHT)
    seen = replace(seen, rgb=(gaussian(seen.rgb / np.float32(255.0), 8.0) * 255 + 0.5).astype(np.uint8))
    rng = np.random.default_rng(0)
    depth = seen.depth.copy()
    rows, columns = (-(-side // 6) for side in depth[TORN].shape)
    factors = np.where(rng.random((rows, columns)) < 0.35, rng.uniform(0.5, 2.0, (rows, columns)), 1.0)
    factors = factors.repeat(6, 0).repeat(6, 1)[: depth[TORN].shape[0], : depth[TORN].shape[1]]
    depth[TORN] *= factors.astype(np.float32)
    return replace(seen, depth=depth)


def photo_at(x: float) -> Reference:
    return replace(reference_at(x, WIDTH, HEIGHT), depth=None)


def loosely(frame: Frame, x: float = 0.15):
    target = Target.of(frame)
    source = Source.of(target, photo_at(x))
    patches = patch_depth(surface_for(target, source).small_depth, round(PATCH_PX / target.pixel))
    assert patches is not None
    return carry_loosely(target, patches, source)


def test_the_middle_over_patches_is_the_wall(frame: Frame) -> None:
    true = soft_frame(WIDTH, HEIGHT).depth
    found = patch_depth(frame.depth, PATCH_PX)
    assert found is not None and found.shape == true.shape and found.dtype == np.float32
    inside = (slice(50, 220), slice(260, 310))
    assert np.abs(found / true - 1)[inside].max() < 0.03
    assert np.abs(np.diff(found, axis=1))[inside].max() < 0.01 * true.mean()


def test_no_depth_is_none_and_holes_are_bridged() -> None:
    depth = np.full((64, 64), 2.0, np.float32)
    assert patch_depth(0 * depth, PATCH_PX) is None
    depth[8:40, 8:40] = 0
    found = patch_depth(depth, PATCH_PX)
    assert found is not None and np.allclose(found, 2.0, rtol=1e-5)
    assert patch_depth(depth[:1, :1] + 2, PATCH_PX) is not None


def test_it_brings_detail_where_the_exact_way_is_torn(frame: Frame) -> None:
    true = reference_at(0.0, WIDTH, HEIGHT).rgb  # what the frame's camera would see
    target = Target.of(frame)
    source = Source.of(target, photo_at(0.15))
    exact, loose = align_photo(target, source, surface_for(target, source)), loosely(frame)
    assert exact is not None and loose is not None
    inside = (slice(50, 220), slice(260, 310))

    def quality(rgb: np.ndarray) -> float:
        return psnr(rgb[inside], true[inside])

    assert quality(loose.rgb) > max(quality(frame.rgb) + 3, quality(exact.rgb))
    assert loose.confidence[inside].mean() > exact.confidence[inside].mean() + 0.1


def test_other_colours_are_not_believed_and_beyond_the_photo_is_the_render(frame: Frame) -> None:
    rgb = frame.rgb.copy()
    rgb[60:200, 20:110] = 255 - rgb[60:200, 20:110]
    there, other = loosely(frame), loosely(replace(frame, rgb=rgb))
    assert there is not None and other is not None
    middle = (slice(90, 170), slice(45, 85))
    assert other.confidence[middle].mean() < 0.6 * there.confidence[middle].mean()

    away = loosely(frame, x=1.2)
    assert away is not None
    same = (away.rgb == frame.rgb).all(axis=-1)
    unknown = binary_opening(same, np.ones((3, 3)))  # single pixels are alike by chance too
    assert 0.05 < unknown.mean() < 0.95 and away.geometry[unknown].max() == 0


def test_what_hides_a_surface_from_the_photo_is_not_shown_on_it(frame: Frame) -> None:
    photo = photo_at(0.15)
    target = Target.of(frame)
    patches = patch_depth(target.small_depth, round(PATCH_PX / target.pixel))
    assert patches is not None
    before = reference_at(0.15, WIDTH, HEIGHT).depth.copy()
    before[60:200, 240:330] *= np.float32(0.5)  # something stands there

    def beliefs(depth: np.ndarray | None) -> np.ndarray:
        carried = carry_loosely(target, patches, Source.of(target, replace(photo, depth=depth)))
        assert carried is not None
        return np.dstack([carried.geometry, carried.confidence])

    open_to_view, hidden = beliefs(None), beliefs(before)
    inside = (slice(90, 170), slice(270, 290))
    assert open_to_view[inside].mean() > 0.3 and hidden[inside].max() < 1e-3
    assert np.abs(hidden - open_to_view)[:, :60].mean() < 0.02


def test_what_the_frame_does_not_show_is_no_reason_for_doubt(frame: Frame) -> None:
    hole = (slice(60, 200), slice(20, 110))
    rgb, alpha = frame.rgb.copy(), frame.alpha.copy()
    rgb[hole] = 0
    opaque = loosely(replace(frame, rgb=rgb, alpha=alpha))
    alpha[hole] = 0
    empty = loosely(replace(frame, rgb=rgb, alpha=alpha))
    assert opaque is not None and empty is not None
    middle = (slice(90, 170), slice(45, 85))
    assert empty.confidence[middle].mean() > 5 * opaque.confidence[middle].mean()


def test_planes_hold_both_ways_of_each_photo(frame: Frame) -> None:
    reference = photo_at(0.15)
    behind = reference.camera.moved(np.diag([-1.0, 1.0, -1.0, 1.0]) @ reference.camera.cam_from_world)
    own, photos = planes_of(frame, [reference, replace(reference, camera=behind)])
    assert own.shape == (HEIGHT, WIDTH, 5) and photos.shape == (1, HEIGHT, WIDTH, 10)
    loose = loosely(frame)
    assert loose is not None
    assert np.array_equal(photos[0, ..., 5:8], loose.rgb)
    assert np.abs(photos[0, ..., 9] / 255.0 - loose.confidence).max() <= 0.5 / 255 + 1e-6
