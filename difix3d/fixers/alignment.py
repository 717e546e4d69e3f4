"""Carry photos into a frame's camera and fit them to its render: what fixers blend, learned or not.

    surface -> look up -> exposure -> flow -> agreement with the render

Depth rendered from quick fits is some percent off, so a photo is first carried by it and then aligned to the render
by what can be seen (Floating Textures, Eisemann et al. 2008). All of that is judged at half size, where it takes a
quarter of the time and changes slowly enough; only the photo's colours are looked up at full size, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.photometric import (
    Exposure,
    Floats,
    agreement,
    box,
    flow_to,
    gaussian,
    match_exposure,
    squares,
    to_bytes,
)
from difix3d.fixers.surface import Surface, steady_depth, surface_for
from difix3d.fixers.target import Source, Target, grown
from difix3d.types import Frame, Reference
from difix3d.warping import Lookup, carry, displaced, look_up, merged, sample, sample_bytes

_T = TypeVar("_T")

_NEAR_SHIFT_PX = 30.0
"""Flow this long halves belief: what had to be moved so far may be something else."""
_WRINKLE_RADIUS_PX, _WRINKLE_PX = 4, 1.4
"""Root mean square, over 9x9 pixels, of how far a look-up is from the mean of its surroundings; target pixels."""
_DRAWN_OUT, _PRESSED = 0.8, 2.0
"""The photo's pixels per pixel, as a share of what there are at this distance, along the direction that has fewest of
them and along the one that has most: surfaces seen at a slant of up to 60 degrees have twice as many."""
WORTH_A_LOOK = 50.0
"""Believed pixels below which a photo is not looked at further."""
_CHANCE, _FITTING = 0.3, 0.5
"""Share of what geometry promises that colours must confirm: photos that fit reach 0.6 and more even on renders of 11
dB, noise reaches 0.18. Below it the rest agrees by chance."""


@dataclass(frozen=True)
class Aligned:
    """A photo in the frame's camera.

    rgb: [H, W, 3] uint8, of the render's exposure, and the render itself where the photo does not reach;
    geometry: [H, W] belief in [0, 1] from depth, angle, density and flow alone, 0 where the photo knows nothing;
    confidence: [H, W], the same where the colours agree with the render too.
    """

    rgb: NDArray[np.uint8]
    geometry: Floats
    confidence: Floats


def align_photos(frame: Frame, references: Sequence[Reference]) -> list[Aligned]:
    """The references in the frame's camera, in their order, without those of which next to nothing can be believed.

    The frame must have depth. A reference without depth is used, but what is hidden from it is then told by colour
    alone. ShapeError for pictures or depths that have not their camera's size.
    """
    target = Target.of(frame)

    def align(reference: Reference) -> Aligned | None:
        source = Source.of(target, reference)
        return align_photo(target, source, surface_for(target, source))

    photos = side_by_side(align, references)
    return [photo for photo in photos if photo is not None]


def side_by_side(change: Callable[[Reference], _T], references: Sequence[Reference]) -> list[_T]:
    """`change` of each. numpy and OpenCV let go of the interpreter while they compute: two at once on two cores."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(change, references))


def align_photo(target: Target, source: Source, surface: Surface) -> Aligned | None:
    """The photo in the frame's camera, carried by `surface`; None where next to nothing of it can be believed."""
    pixel, render = target.pixel, target.small_render
    small, small_rgb, depth = source.small_camera, source.small_rgb, source.small_depth
    if depth is not None:
        depth = steady_depth(depth, None, small_rgb.astype(np.float32) / np.float32(255.0), pixel)
    lookup = look_up(small, target.small_camera, surface.small_depth, depth, target.small_alpha, pixel=pixel)
    if lookup.confidence.sum() * pixel**2 < WORTH_A_LOOK:
        return None
    photo = sample(small_rgb, lookup)
    exposure = match_exposure(photo, render, lookup.confidence)
    # The search sees the render itself where the photo knows nothing, so that it finds no motion there.
    inside = (gaussian(lookup.valid.astype(np.float32), 1.5 / pixel) * lookup.valid)[..., None]
    flow = flow_to(render, exposure.apply(photo) * inside + render * (1 - inside), pixel)
    lookup = moved(lookup, flow, pixel)
    # Outside the photo's reach the render: a feather that runs over the edge must find nothing else there.
    photo = np.where(lookup.valid[..., None], exposure.apply(sample(small_rgb, lookup)), render)
    agreed = lookup.confidence * agreement(photo, render, pixel)
    share = float(agreed.sum() / max(float(lookup.confidence.sum()), 1e-6))
    agreed *= np.float32(np.clip((share - _CHANCE) / (_FITTING - _CHANCE), 0.0, 1.0))
    if pixel == 1:
        return Aligned(to_bytes(photo), lookup.confidence, agreed)
    return _at_full_size(target, source, surface.depth, exposure, flow, lookup, agreed)


def _at_full_size(
    target: Target,
    source: Source,
    depth: Floats,
    exposure: Exposure,
    flow: Floats,
    lookup: Lookup,
    agreed: Floats,
) -> Aligned:
    """What was found at small size, with the photo's colours at full size."""
    p_r, carried = carry(source.camera, target.camera, depth)
    p_r, carried, _ = _flowed(grown(flow, target.camera) * np.float32(target.pixel), p_r, carried)
    valid = carried & (grown(lookup.valid.astype(np.float32), target.camera) > 0.999)
    density = cv2.resize(lookup.density, valid.shape[::-1], interpolation=cv2.INTER_NEAREST)
    colours = sample_bytes(source.rgb, Lookup(p_r, valid, agreed, np.asarray(density, dtype=np.float32)))
    geometry, confidence = (grown(one, target.camera) * valid for one in (lookup.confidence, agreed))
    return Aligned(over(target.rgb, exposure.apply_to_bytes(colours), valid), geometry, confidence)


def over(below: NDArray[np.uint8], above: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """[H, W, 3]: `above` where it is valid, `below` elsewhere."""
    return np.asarray(cv2.copyTo(above, valid.view(np.uint8), below.copy()))


def moved(lookup: Lookup, flow: Floats, pixel: float) -> Lookup:
    """The look-up displaced by flow: one sampling of the photo for both, so that it is softened only once."""
    p_r, valid, (confidence,) = _flowed(flow, lookup.p_r, lookup.valid, lookup.confidence)
    doubt = np.exp2(-squares(flow) * np.float32((pixel / _NEAR_SHIFT_PX) ** 2))
    confidence *= doubt * valid
    confidence *= unwrinkled(p_r, lookup.density, pixel) * unstretched(p_r, lookup.density)
    return Lookup(p_r, valid, confidence, lookup.density)


def _flowed(
    flow: Floats, p_r: Floats, valid: NDArray[np.bool_], *more: Floats
) -> tuple[Floats, NDArray[np.bool_], Sequence[Floats]]:
    """A look-up displaced by flow, and one plane more at most; in one go, which takes hardly longer than one plane."""
    # A pixel less: next to what is hidden, photos show some of what hides it.
    inside = cv2.erode(valid.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    x, y, there, *rest = cv2.split(displaced(merged(p_r, np.asarray(inside, dtype=np.float32), *more), flow))
    return merged(x, y), there > 0.999, [np.asarray(each, dtype=np.float32) for each in rest]


def unwrinkled(p_r: Floats, density: Floats, pixel: float = 1.0) -> Floats:
    """[H, W] in [0, 1]: low where neighbours take their colours from here and there in the photo, as noisy depth makes
    them do. A smooth surface's look-up is nearly affine over some pixels, so its mean is its middle."""
    radius = round(_WRINKLE_RADIUS_PX / pixel)
    away = p_r - box(p_r, radius)
    wrinkle_px2 = squares(away) * np.square(np.float32(pixel) / np.maximum(density, np.float32(0.1)))
    worst = box(wrinkle_px2, radius)
    return np.exp(-0.5 * np.maximum(worst, 0.0) / np.float32(_WRINKLE_PX**2)).astype(np.float32)


def unstretched(p_r: Floats, density: Floats) -> Floats:
    """[H, W] in [0, 1]: low where a little of the photo is drawn out over many pixels along some direction, or much of
    it pressed into few, as where depth falls off steeply; 0 where it is mirrored. It looks like ripples.

    Asks the singular values s of the look-up's derivative J: s^2 = a -+ sqrt(a^2 - det(J)^2), a = |J|^2 / 2.
    """
    u_x, u_y, v_x, v_y = (_across(plane, along_x) for plane in cv2.split(p_r) for along_x in (True, False))
    half_norm2 = np.float32(0.5) * (u_x * u_x + u_y * u_y + v_x * v_x + v_y * v_y)
    determinant = np.maximum(u_x * v_y - v_x * u_y, np.float32(0.0))
    spread = np.sqrt(np.maximum(half_norm2 * half_norm2 - determinant * determinant, np.float32(0.0)))
    least2 = np.where(determinant > 0, half_norm2 - spread, np.float32(0.0))
    usual2 = np.square(2 * np.maximum(density, np.float32(0.1)))  # differences are over two pixels
    drawn_out = np.minimum(least2 / (usual2 * np.float32(_DRAWN_OUT**2)), 1.0)
    pressed = np.minimum(usual2 * np.float32(_PRESSED**2) / np.maximum(half_norm2 + spread, np.float32(1e-12)), 1.0)
    return np.maximum(drawn_out * pressed, 0.0).astype(np.float32)


def _across(plane: NDArray, along_x: bool) -> Floats:
    """[H, W]: what a plane gains from one neighbour to the other, two pixels on."""
    orders = (1, 0) if along_x else (0, 1)
    gain = np.asarray(cv2.Sobel(plane, cv2.CV_32F, *orders, ksize=1, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
    edges = gain if along_x else gain.T  # a view
    edges[:, [0, -1]] *= 2  # at the border they are one pixel apart
    return gain
