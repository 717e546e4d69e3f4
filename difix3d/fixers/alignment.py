"""Carry photos into a frame's camera and fit them to its render: what fixers blend, learned or not.

    steady depth -> look up -> exposure -> flow -> agreement with the render

Depth rendered from quick fits is some percent off, so a photo is first carried by it and then aligned to the render
by what can be seen (Floating Textures, Eisemann et al. 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.photometric import Floats, agreement, box, flow_to, gaussian, luma, match_exposure
from difix3d.types import Camera, Frame, Reference, require_shape
from difix3d.warping import Lookup, bilinear, look_up, sample

_STEADY_RADIUS_PX = 3
_STEADY_EDGE = 1e-2
"""Guided filter: brightness varying by less than this variance (10 % of white) is texture, not an edge in depth."""
_NEAR_SHIFT_PX = 30.0
"""Flow this long halves belief: what had to be moved so far may be something else."""
_WRINKLE_RADIUS_PX, _WRINKLE_PX = 4, 1.4
"""Root mean square, over 9x9 pixels, of how far a look-up is from the mean of its surroundings; target pixels."""
_WORTH_A_LOOK = 50.0
"""Believed pixels below which a photo is not looked at further."""
_CHANCE, _FITTING = 0.3, 0.5
"""Share of what geometry promises that colours must confirm: photos that fit reach 0.6 and more even on renders of 11
dB, noise reaches 0.18. Below it the rest agrees by chance."""


@dataclass(frozen=True)
class Aligned:
    """A photo in the frame's camera.

    rgb: [H, W, 3] float32 in [0, 1], of the render's exposure, and the render itself where the photo does not reach;
    geometry: [H, W] belief in [0, 1] from depth, angle, density and flow alone, 0 where the photo knows nothing;
    confidence: [H, W], the same where the colours agree with the render too.
    """

    rgb: Floats
    geometry: Floats
    confidence: Floats


def align_photos(frame: Frame, references: Sequence[Reference]) -> list[Aligned]:
    """The references in the frame's camera, in their order, without those of which next to nothing can be believed.

    The frame must have depth. A reference without depth is used, but what is hidden from it is then told by colour
    alone. ShapeError for pictures or depths that have not their camera's size.
    """
    shape = (frame.camera.height, frame.camera.width)
    require_shape("frame.rgb", frame.rgb, (*shape, 3))
    require_shape("frame.depth", frame.depth, shape)
    render = frame.rgb.astype(np.float32) / np.float32(255.0)
    depth = steady_depth(frame.depth, frame.alpha, render)
    # numpy and OpenCV let go of the interpreter while they compute: two photos at once on two cores.
    with ThreadPoolExecutor(2) as pool:
        photos = pool.map(lambda one: _align(render, frame, depth, one), references)
        return [photo for photo in photos if photo is not None]


def steady_depth(depth: Floats, alpha: Floats | None, rgb: Floats) -> Floats:
    """[H, W]: depth without the noise of single splats, edges kept where the picture has them; 0 where there is none.

    Guided filter (He et al. 2013) of inverse depth, which is linear in the pixels of a plane, with the picture's
    brightness as guide; pixels without depth or with little alpha count little.
    """
    known = depth > 0
    weight = np.where(known, 1.0 if alpha is None else alpha, 0.0).astype(np.float32) + np.float32(1e-4)
    inverse = np.where(known, 1 / np.where(known, depth, 1.0), 0.0).astype(np.float32)
    guide = luma(rgb)

    def mean(values: Floats) -> Floats:
        return box(weight * values, _STEADY_RADIUS_PX) / total

    total = box(weight, _STEADY_RADIUS_PX)
    mean_guide, mean_inverse = mean(guide), mean(inverse)
    covariance = mean(guide * inverse) - mean_guide * mean_inverse
    variance = np.maximum(mean(guide * guide) - mean_guide * mean_guide, np.float32(0.0))
    slope = (covariance / (variance + _STEADY_EDGE)).astype(np.float32)
    intercept: Floats = mean_inverse - slope * mean_guide
    smooth = mean(slope) * guide + mean(intercept)
    found = known & (smooth > 1e-6)
    return np.where(found, 1 / np.where(found, smooth, 1.0), depth).astype(np.float32)


def _align(render: Floats, frame: Frame, depth: Floats, reference: Reference) -> Aligned | None:
    """The reference in the frame's camera; None where next to nothing of it can be believed."""
    require_shape("reference.rgb", reference.rgb, (reference.camera.height, reference.camera.width, 3))
    camera, rgb, depth_r = _at_size_of(frame.camera, reference)
    if depth_r is not None:
        depth_r = steady_depth(depth_r, None, rgb.astype(np.float32) / np.float32(255.0))
    lookup = look_up(camera, frame.camera, depth, depth_r, frame.alpha)
    if lookup.confidence.sum() < _WORTH_A_LOOK:
        return None
    photo = sample(rgb, lookup)
    exposure = match_exposure(photo, render, lookup.confidence)
    # The search sees the render itself where the photo knows nothing, so that it finds no motion there.
    inside = (gaussian(lookup.valid.astype(np.float32), 1.5) * lookup.valid)[..., None]
    flow = flow_to(render, exposure.apply(photo) * inside + render * (1 - inside))
    lookup = _moved(lookup, flow)
    # Outside the photo's reach the render: a feather that runs over the edge must find nothing else there.
    photo = np.where(lookup.valid[..., None], exposure.apply(sample(rgb, lookup)), render)
    agreed = lookup.confidence * agreement(photo, render)
    share = float(agreed.sum() / max(float(lookup.confidence.sum()), 1e-6))
    fits = np.float32(np.clip((share - _CHANCE) / (_FITTING - _CHANCE), 0.0, 1.0))
    return Aligned(photo, lookup.confidence, agreed * fits)


def _at_size_of(target: Camera, reference: Reference) -> tuple[Camera, NDArray[np.uint8], Floats | None]:
    """The reference no more than 1.5 times as fine as the target, so that large photos cost no more than they give."""
    camera, depth = reference.camera, reference.depth
    scale = 1.5 * max(target.width, target.height) / max(camera.width, camera.height)
    if scale >= 1:
        return camera, reference.rgb, depth
    small = camera.resized(round(scale * max(camera.width, camera.height)))
    size = (small.width, small.height)
    rgb = np.asarray(cv2.resize(reference.rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if depth is not None:
        depth = np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)
    return small, rgb, depth


def _moved(lookup: Lookup, flow: Floats) -> Lookup:
    """The look-up displaced by flow: one sampling of the photo for both, so that it is softened only once."""
    height, width = lookup.valid.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5)
    there = np.stack([x, y], axis=-1) + flow
    # A pixel less: next to what is hidden, photos show some of what hides it.
    inside = cv2.erode(lookup.valid.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    valid = bilinear(np.asarray(inside, dtype=np.float32), there) > 0.999
    doubt = np.exp2(-np.square(flow).sum(axis=-1) / np.float32(_NEAR_SHIFT_PX**2))
    p_r = bilinear(lookup.p_r, there)
    confidence = bilinear(lookup.confidence, there) * doubt * valid * unwrinkled(p_r, lookup.density)
    return Lookup(p_r, valid, confidence, lookup.density)


def unwrinkled(p_r: Floats, density: Floats) -> Floats:
    """[H, W] in [0, 1]: low where neighbours take their colours from here and there in the photo, as noisy depth makes
    them do. A smooth surface's look-up is nearly affine over some pixels, so its mean is its middle."""
    wrinkle_px = np.linalg.norm(p_r - box(p_r, _WRINKLE_RADIUS_PX), axis=-1) / np.maximum(density, np.float32(0.1))
    worst = box(np.square(wrinkle_px).astype(np.float32), _WRINKLE_RADIUS_PX)
    return np.exp(-0.5 * np.maximum(worst, 0.0) / np.float32(_WRINKLE_PX**2)).astype(np.float32)
