"""Warping against exact geometry: the identity, a slanted wall, what hides it, and whatever depth may hold."""

from __future__ import annotations

import numpy as np
import pytest
import walls
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.errors import ShapeError
from difix3d.geometry import look_at, project, unproject
from difix3d.types import Camera
from difix3d.warping import displaced, look_up, merged, sample, warp_photo


def border(shape: tuple[int, int], width: int = 2) -> np.ndarray:
    inner = np.zeros(shape, bool)
    inner[width:-width, width:-width] = True
    return inner


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=radius)


def test_displaced_planes_are_read_between_pixels() -> None:
    """Exactly, and not to the 32nd of a pixel to which OpenCV rounds where there are two planes."""
    y, x = np.mgrid[:40, :60].astype(np.float32)
    flow = np.random.default_rng(0).uniform(-3, 3, (40, 60, 2)).astype(np.float32)
    found = displaced(merged(x, y, x * 2), flow)
    inside = border((40, 60), 4)
    for plane, truth in zip(np.moveaxis(found, -1, 0), (x + flow[..., 0], y + flow[..., 1], 2 * (x + flow[..., 0]))):
        assert np.abs(plane - truth)[inside].max() < 1e-3


def test_into_the_same_camera_is_the_identity() -> None:
    camera = walls.camera_at(0.4)
    seen = walls.see(camera)
    warped = warp_photo(seen.photo, camera, camera, seen.depth, seen.depth, np.ones_like(seen.depth))
    assert np.abs(warped.rgb * 255 - seen.photo).max() <= 1
    # A pixel's four neighbours at the very border and at depth edges are another matter.
    edges = grown(np.abs(np.gradient(seen.depth)[1]) + np.abs(np.gradient(seen.depth)[0]) > 0.3, 2)
    inner = border(seen.depth.shape) & ~edges
    assert warped.valid[inner].all()
    assert warped.confidence[inner].min() > 0.95


@settings(max_examples=20, deadline=None)
@given(x=st.floats(-1.5, 1.5), z=st.floats(-0.8, 0.8), y=st.floats(-4.0, -2.0))
def test_a_wall_lands_where_projection_says(x: float, z: float, y: float) -> None:
    target, reference = walls.camera_at(0.0), walls.camera_at(x, z, y)
    there, here = walls.see(reference, front=False), walls.see(target, front=False)
    lookup = look_up(reference, target, here.depth, there.depth)
    exact, _ = project(reference, unproject(target, here.depth).reshape(-1, 3))
    valid = lookup.valid
    assert valid.sum() > 500
    error_px = np.linalg.norm(lookup.p_r - exact.reshape(*valid.shape, 2), axis=-1)
    assert error_px[valid].max() < 0.01
    inside = ((exact > 1) & (exact < (reference.width - 1, reference.height - 1))).all(axis=1).reshape(valid.shape)
    assert (valid | ~inside).mean() > 0.995  # nothing hides this wall
    # Colours too: the texture changes by up to 0.15 a pixel, so this is a tenth of a pixel.
    difference = np.abs(sample(there.photo, lookup) - here.rgb)[valid & inside & (lookup.density > 0.8)]
    assert difference.size == 0 or np.quantile(difference, 0.98) < 0.02


@pytest.mark.parametrize("x", [-1.2, -0.6, 0.7, 1.3])
def test_what_is_hidden_from_the_photo_is_not_valid(x: float) -> None:
    target, reference = walls.camera_at(0.0), walls.camera_at(x)
    here, there = walls.see(target), walls.see(reference)
    lookup = look_up(reference, target, here.depth, there.depth)
    # By ray: the back wall's point is hidden where its line to the reference crosses the small wall.
    points = unproject(target, here.depth)
    position = reference.position
    share = (walls.FRONT_Y - position[1]) / (points[..., 1] - position[1])
    crossing = position + share[..., None] * (points - position)
    hidden = ~here.front & (np.abs(crossing[..., [0, 2]]).max(axis=-1) < walls.FRONT_HALF_SIZE)
    assert hidden.sum() > 100
    inner_hidden = hidden & ~grown(~hidden, 2)
    assert not lookup.valid[inner_hidden].any()
    assert not lookup.confidence[~lookup.valid].any()
    pixels, _ = project(reference, points.reshape(-1, 3))
    inside = ((pixels > 2) & (pixels < (reference.width - 2, reference.height - 2))).all(axis=1).reshape(hidden.shape)
    seen = inside & ~grown(hidden, 3) & ~grown(here.front, 3)
    assert lookup.valid[seen].mean() > 0.99
    assert lookup.confidence[seen].mean() > 0.25
    # Without the reference's depth nothing can tell.
    assert look_up(reference, target, here.depth).valid[inner_hidden].any()


@pytest.mark.parametrize("x", [-0.8, 0.9])
def test_depth_that_only_hides(x: float) -> None:
    target, reference = walls.camera_at(0.0), walls.camera_at(x)
    here, there = walls.see(target), walls.see(reference)
    told, untold = (
        look_up(reference, target, here.depth, hiding_depth=there.depth),
        look_up(reference, target, here.depth),
    )
    exact = look_up(reference, target, here.depth, there.depth)
    changed = told.confidence != untold.confidence
    assert not told.confidence[changed].any() and np.array_equal(told.valid, untold.valid)
    assert changed.sum() > 100 and not exact.valid[changed & ~grown(~changed, 2)].any()
    # Depth may be far off as long as nothing stands before it.
    off = look_up(reference, target, 1.2 * here.depth, hiding_depth=there.depth)
    assert off.confidence[exact.valid & ~grown(changed, 4)].mean() > 0.25
    nothing = look_up(reference, target, here.depth, hiding_depth=0 * there.depth)
    assert np.array_equal(nothing.confidence, untold.confidence)
    with pytest.raises(ShapeError, match="hiding_depth"):
        look_up(reference, target, here.depth, hiding_depth=there.depth[:-1])


def test_floating_depth_is_not_valid() -> None:
    target, reference = walls.camera_at(0.0), walls.camera_at(0.5)
    here, there = walls.see(target, front=False), walls.see(reference, front=False)
    depth = here.depth.copy()
    depth[30:60, 40:80] *= 0.6
    assert not look_up(reference, target, depth, there.depth).valid[32:58, 42:78].any()


def test_confidence_falls_with_the_angle_and_with_blur_and_with_alpha() -> None:
    target = walls.camera_at(0.0)
    here = walls.see(target, front=False)

    def mean_confidence(reference: Camera, alpha: float = 1.0) -> float:
        there = walls.see(reference, front=False)
        lookup = look_up(reference, target, here.depth, there.depth, np.full_like(here.depth, alpha))
        return float(lookup.confidence[lookup.valid].mean())

    near, aside, far = (mean_confidence(walls.camera_at(x)) for x in (0.1, 0.8, 2.0))
    assert near > aside + 0.02 > far + 0.1
    assert mean_confidence(walls.camera_at(0.1, y=-6.0)) < 0.7 * near
    assert mean_confidence(walls.camera_at(0.1), alpha=0.5) == pytest.approx(0.5 * near, rel=1e-3)


def test_a_larger_photo_is_averaged_down() -> None:
    target = walls.camera_at(0.2)
    large = target.sized(4 * target.width, 4 * target.height)
    here = walls.see(target, front=False)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (large.height, large.width, 3), dtype=np.uint8)
    lookup = look_up(large, target, here.depth, walls.see(large, front=False).depth)
    assert np.median(lookup.density[lookup.valid]) == pytest.approx(4, rel=0.01)
    # The mean of 16 independent pixels: a quarter of the deviation, give or take the bicubic kernel.
    assert sample(noise, lookup)[lookup.valid].std() < 0.35 * noise.std() / 255


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_depth_and_any_pose_give_finite_answers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = walls.camera_at(0.0, width=24, height=18)
    pose = look_at(rng.normal(size=3), rng.normal(size=3) * 2)
    reference = target.moved(pose)
    wild = [np.float32(value) for value in (0.0, -1.0, 1e-6, 1e6, 3.0)]
    depth = rng.choice(wild, (18, 24)).astype(np.float32)
    other = rng.choice(wild, (18, 24)).astype(np.float32)
    photo = rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)
    warped = warp_photo(photo, reference, target, depth, other, rng.random((18, 24)).astype(np.float32))
    assert np.isfinite(warped.rgb).all() and np.isfinite(warped.confidence).all()
    assert ((warped.confidence >= 0) & (warped.confidence <= 1)).all()
    assert not warped.confidence[~warped.valid].any()
    assert not warped.valid[depth <= 0].any()


def test_a_photo_from_behind_sees_nothing() -> None:
    target = walls.camera_at(0.0)
    behind = target.moved(look_at((0, 9, 0), (0, 20, 0)))
    here = walls.see(target)
    assert not look_up(behind, target, here.depth).valid.any()


def test_wrong_sizes_are_named() -> None:
    camera = walls.camera_at(0.0)
    seen = walls.see(camera)
    with pytest.raises(ShapeError, match="target_depth"):
        look_up(camera, camera, seen.depth[:-1])
    with pytest.raises(ShapeError, match="reference_depth"):
        look_up(camera, camera, seen.depth, seen.depth[:, :-1])
    with pytest.raises(ShapeError, match="rgb"):
        warp_photo(seen.photo[:-1], camera, camera, seen.depth)
