"""The reproject fixer on walls with exact depth: it sharpens what photos show, and leaves alone what they do not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import walls

from difix3d.fixers.alignment import unstretched, unwrinkled
from difix3d.fixers.photometric import Exposure, agreement, flow_to, gaussian, match_exposure
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.fixers.surface import steady_depth
from difix3d.metrics import psnr
from difix3d.types import Camera, Frame, Reference

TARGET = walls.camera_at(0.0, width=160, height=120)


def reference_at(x: float, name: str = "photo.png", size: int = 160) -> Reference:
    camera = walls.camera_at(x, width=160, height=120).resized(size)
    seen = walls.see(camera)
    return Reference(name, camera, seen.photo, seen.depth)


def blurred_frame(sigma_px: float = 2.5, size: int = 160) -> tuple[Frame, np.ndarray]:
    """(a render that is blurred, and the truth)"""
    camera = TARGET.resized(size)
    seen = walls.see(camera)
    soft = (gaussian(seen.rgb, sigma_px) * 255 + 0.5).astype(np.uint8)
    return Frame("test", 0, camera, soft, np.ones_like(seen.depth), seen.depth), seen.photo


@pytest.fixture
def frame() -> Frame:
    return blurred_frame()[0]


def fix(frame: Frame, *references: Reference) -> np.ndarray:
    return ReprojectFixer().fix(frame, references)


def test_photos_bring_the_detail_back() -> None:
    frame, truth = blurred_frame()
    before, one = psnr(frame.rgb, truth), psnr(fix(frame, reference_at(0.2)), truth)
    two = psnr(fix(frame, reference_at(0.2), reference_at(-0.25)), truth)
    assert one > before + 2
    assert two > one


def test_large_frames_which_are_judged_at_half_size() -> None:
    frame, truth = blurred_frame(4.0, size=401)
    photos = [reference_at(0.2, size=401), reference_at(-0.25, size=401)]
    assert psnr(fix(frame, *photos), truth) > psnr(frame.rgb, truth) + 1.5
    off = replace(frame, depth=frame.depth * np.float32(1.03))
    assert psnr(fix(off, *photos), truth) > psnr(frame.rgb, truth) + 1.5
    depth = frame.depth.copy()
    depth[100:200, 250:375] = 0
    fixed = fix(replace(frame, depth=depth), *photos)
    assert np.array_equal(fixed[112:188, 262:363], frame.rgb[112:188, 262:363])


@pytest.mark.parametrize("error", [0.97, 1.04])
def test_flow_makes_up_for_depth_that_is_some_percent_off(error: float) -> None:
    frame, truth = blurred_frame()
    off = replace(frame, depth=frame.depth * np.float32(error))
    assert psnr(fix(off, reference_at(0.15)), truth) > psnr(frame.rgb, truth) + 1


def test_another_exposure_is_matched() -> None:
    frame, truth = blurred_frame()
    photo = reference_at(0.2)
    darker = np.clip(photo.rgb.astype(np.float32) * (0.75, 0.8, 0.85) + 12, 0, 255).astype(np.uint8)
    fixed = fix(frame, replace(photo, rgb=darker))
    assert psnr(fixed, truth) > psnr(frame.rgb, truth) + 1
    assert np.abs(fixed.reshape(-1, 3).mean(axis=0) - frame.rgb.reshape(-1, 3).mean(axis=0)).max() < 2


def test_without_references_or_without_use_the_render_stays(frame: Frame) -> None:
    assert np.array_equal(fix(frame), frame.rgb)
    behind = replace(reference_at(0.0), camera=TARGET.moved(np.diag([-1.0, 1, -1, 1]) @ TARGET.cam_from_world))
    assert np.array_equal(fix(frame, behind), frame.rgb)
    rng = np.random.default_rng(0)
    photo = reference_at(0.2)
    noise = replace(photo, rgb=rng.integers(0, 256, photo.rgb.shape, dtype=np.uint8))
    assert np.array_equal(fix(frame, noise), frame.rgb)


def test_beyond_the_photo_the_render_stays_and_no_border_shows(frame: Frame) -> None:
    photo = reference_at(0.1)
    # The left half of the photo alone: its right border must not be seen in the fix.
    half = Camera(photo.camera.K, 80, 120, photo.camera.cam_from_world)
    fixed = fix(frame, Reference("half", half, photo.rgb[:, :80], photo.depth[:, :80])).astype(float)
    assert np.array_equal(fixed[:, 110:], frame.rgb[:, 110:])
    change = np.abs(fixed - frame.rgb)
    assert change[:, :60].mean() > 3  # it was used at all
    # Around the border each pixel lies between the render and what the whole photo would have made of it.
    whole = fix(frame, photo).astype(float)
    low, high = np.minimum(whole, frame.rgb), np.maximum(whole, frame.rgb)
    outside = np.maximum(low - fixed, fixed - high)[:, 76:100]
    assert outside.max() < 10


def test_what_only_the_photo_shows_is_not_carried_over(frame: Frame) -> None:
    photo = reference_at(0.2)
    painted = photo.rgb.copy()
    painted[20:50, 20:50] = (255, 0, 0)  # somebody walked through
    red = fix(frame, replace(photo, rgb=painted)).astype(int)
    assert ((red[..., 0] > 200) & (red[..., 1] < 60) & (red[..., 2] < 60)).sum() == 0


def test_hidden_parts_do_not_double_the_front_wall() -> None:
    frame, truth = blurred_frame(1.0)
    front = walls.see(TARGET).front
    around = cv2.dilate(front.astype(np.uint8), np.ones((31, 31))).astype(bool) & ~front
    fixed = fix(frame, reference_at(0.9))
    worse = np.abs(fixed.astype(float) - truth).mean(axis=2) - np.abs(frame.rgb.astype(float) - truth).mean(axis=2)
    assert worse[around].mean() < 1.0
    assert np.quantile(worse[around], 0.99) < 25


def test_photos_of_other_sizes(frame: Frame) -> None:
    truth = walls.see(TARGET).photo
    for size in (90, 320, 600):
        fixed = fix(frame, reference_at(0.2, size=size))
        assert fixed.shape == frame.rgb.shape
        assert psnr(fixed, truth) > psnr(frame.rgb, truth) + (2 if size > 160 else 0)


def test_a_frame_without_depth_stays_as_rendered(frame: Frame) -> None:
    """As one of a path that looks past everything for a moment: the others of the path are fixed all the same."""
    flat = replace(frame, depth=np.zeros_like(frame.depth))
    fixer = ReprojectFixer()
    for references in ([], [reference_at(0.2)]):
        fixed, trust = fixer.fix_with_trust(flat, references)
        assert np.array_equal(fixed, frame.rgb) and not trust.any()
    assert np.array_equal(fixer.finish(flat, [fixer.carry(flat, reference_at(0.2))])[0], frame.rgb)


def test_a_reference_without_depth_is_used(frame: Frame) -> None:
    truth = walls.see(TARGET).photo
    assert psnr(fix(frame, replace(reference_at(0.2), depth=None)), truth) > psnr(frame.rgb, truth) + 1


def test_holes_in_depth_stay_as_rendered(frame: Frame) -> None:
    depth = frame.depth.copy()
    depth[40:80, 100:150] = 0
    fixed = fix(replace(frame, depth=depth), reference_at(0.2))
    assert np.array_equal(fixed[46:74, 106:144], frame.rgb[46:74, 106:144])


def test_a_look_up_that_jumps_about_is_not_believed() -> None:
    """It embossed blurred backdrops: neighbours took their colours from here and there."""
    x, y = np.meshgrid(np.arange(60, dtype=np.float32), np.arange(50, dtype=np.float32))
    affine = np.stack([0.9 * x + 0.2 * y + 5, 1.1 * y - 0.1 * x], axis=-1).astype(np.float32)
    inner, density = (slice(8, -8), slice(8, -8)), np.ones_like(x)
    assert unwrinkled(affine, density)[inner].min() > 0.99
    jumps = np.random.default_rng(3).normal(0, 3, affine.shape).astype(np.float32)
    assert unwrinkled(affine + jumps, density)[inner].max() < 0.1
    # A photo four times as fine covers four times the pixels by the same jump.
    assert unwrinkled(affine + jumps, 40 * density)[inner].min() > 0.9


def test_what_is_drawn_out_or_pressed_is_not_believed() -> None:
    """It made ripples of leaves and grass where a surface falls away from the photo."""
    x, y = np.meshgrid(np.arange(60, dtype=np.float32), np.arange(50, dtype=np.float32))
    density = np.full_like(x, 1.5)

    def belief(*, along: float, turned_deg: float = 0.0, mirrored: bool = False) -> np.ndarray:
        """The photo's pixels advance by 1.5 down the frame, and by `along` across it."""
        u, v = along * x, (-1.5 if mirrored else 1.5) * y
        cosine, sine = np.cos(np.radians(turned_deg)), np.sin(np.radians(turned_deg))
        return unstretched(
            np.stack([cosine * u - sine * v, sine * u + cosine * v], axis=-1).astype(np.float32), density
        )

    assert belief(along=1.5).min() == 1 and belief(along=1.5, turned_deg=40.0).min() > 0.999
    assert belief(along=2.9, turned_deg=70.0).min() > 0.999  # seen at a slant from here, not from there
    for turned_deg in (0.0, 45.0, 110.0):
        assert np.allclose(belief(along=0.5, turned_deg=turned_deg), (0.5 / 1.5 / 0.8) ** 2, rtol=1e-3)
        assert np.allclose(belief(along=12.0, turned_deg=turned_deg), (1.5 / 12.0 * 2) ** 2, rtol=1e-3)
    assert not belief(along=1.5, mirrored=True).any()
    assert unstretched(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)).shape == (1, 1)


def test_it_repeats_exactly_for_any_number_of_threads(frame: Frame) -> None:
    references = [reference_at(0.2), reference_at(-0.3)]
    threads = cv2.getNumThreads()
    results = []
    try:
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            results.append(fix(frame, *references))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_steady_depth_smooths_walls_and_keeps_their_edges() -> None:
    seen = walls.see(TARGET)
    rng = np.random.default_rng(1)
    noisy = (seen.depth * rng.normal(1, 0.03, seen.depth.shape)).astype(np.float32)
    steady = steady_depth(noisy, None, seen.rgb)
    away = ~cv2.dilate(seen.front.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert np.abs(steady / seen.depth - 1)[away].mean() < 0.35 * np.abs(noisy / seen.depth - 1)[away].mean()
    core = cv2.erode(seen.front.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert np.abs(steady / seen.depth - 1)[core].max() < 0.05
    holes = np.where(away, noisy, np.float32(0.0))
    assert not steady_depth(holes, None, seen.rgb)[~away].any()


def test_exposure_is_found_in_spite_of_outliers() -> None:
    seen = walls.see(TARGET).rgb
    gain, offset = np.array([1.2, 0.9, 1.1], np.float32), np.array([-0.05, 0.04, 0.0], np.float32)
    photo = ((seen - offset) / gain).astype(np.float32)
    photo[:30, :60] = (1, 0, 0)
    found = match_exposure(photo, seen, np.ones(seen.shape[:2], np.float32))
    assert np.abs(found.gain - gain).max() < 0.05 and np.abs(found.offset - offset).max() < 0.03
    nothing = match_exposure(photo, seen, np.zeros(seen.shape[:2], np.float32))
    assert (nothing.gain == 1).all() and (nothing.offset == 0).all()


def test_bytes_get_the_exposure_that_floats_get() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    exposure = Exposure(np.array([1.4, 0.7, 1.0], np.float32), np.array([-0.1, 0.2, 0.0], np.float32))
    floats = exposure.apply(rgb / np.float32(255.0))
    assert np.abs(exposure.apply_to_bytes(rgb) / 255.0 - floats).max() <= 0.5 / 255 + 1e-6


def test_flow_points_from_the_render_into_the_photo() -> None:
    seen = walls.see(TARGET).rgb
    photo = np.roll(seen, (1, 3), axis=(0, 1))  # what is at (x, y) in `seen` is at (x + 3, y + 1) in the photo
    flow = flow_to(seen, photo)
    assert np.median(flow[20:-20, 20:-20], axis=(0, 1)) == pytest.approx((3, 1), abs=0.2)
    assert not flow_to(seen[:8], photo[:8]).any()


@pytest.mark.parametrize("pixel", [1.0, 2.0])
def test_what_drove_off_has_no_flow(pixel: float) -> None:
    """A car that moved a little is found; of one that drove off, what is found leads back elsewhere."""
    scene = walls.see(TARGET).rgb
    car = gaussian(np.random.default_rng(0).random((30, 40, 3), np.float32), 2)
    car = (car - car.min()) / np.ptp(car)

    def seen(x: int) -> np.ndarray:
        picture = scene.copy()
        picture[60:90, x : x + 40] = car
        return picture

    for moved_px, expected_px in ((6, 6), (60, 0)):
        length = np.linalg.norm(flow_to(seen(60), seen(60 + moved_px), pixel), axis=-1)
        assert np.median(length[62:88, 62:98]) == pytest.approx(expected_px, abs=0.5)
        assert np.median(length[:40]) < 0.1


def test_agreement_knows_the_same_from_the_different() -> None:
    seen = walls.see(TARGET).rgb
    assert agreement(seen, gaussian(seen, 1.5)).mean() > 0.8
    assert agreement(seen, seen[:, ::-1]).mean() < 0.35
    plain = np.full_like(seen, 0.5)
    assert agreement(plain, plain + 0.01).min() > 0.95
    assert agreement(plain, plain + 0.4).max() < 0.01
