"""Carry photos into a frame by a depth without any detail: what is left to show where the render's geometry is broken.

There the depth that `alignment` goes by is torn, and a photo carried by it is too. The middle of it over patches leads
a whole patch of the photo to about the right place, in one piece: leaves, grass or a road, some pixels off. Whether
that is more like the truth than the render is only asked of colours without detail.
"""

from __future__ import annotations

import cv2
import numpy as np

from difix3d.fixers.alignment import WORTH_A_LOOK, Aligned, moved, over
from difix3d.fixers.photometric import Floats, flow_to, gaussian, match_exposure, squares, to_bytes
from difix3d.fixers.target import Source, Target, grown
from difix3d.warping import Lookup, look_up, sample, sample_bytes

PATCH_PX = 16
"""Of the frame's full size."""
_PATCHES_DEEP = 5  # the middle again, of so many patches a side
_PLAIN_PX, _SAME_COLOUR = 6.0, 0.12
"""Colours are compared after a blur of so many pixels; root mean square difference where belief is exp(-1/2)."""
_COARSEST = 0.25
"""Pixels of the photo per pixel of the frame along a side: below it there is no detail to bring."""
_UNSEEN = 0.5
"""Belief where the frame shows nothing that a photo could disagree with."""


def patch_depth(depth: Floats, patch_px: int) -> Floats | None:
    """[H, W]: the middle of `depth` over patches, then over those about each, smooth between them. None where there
    is no depth at all."""
    height, width = depth.shape
    rows, columns = max(2, round(height / patch_px)), max(2, round(width / patch_px))
    # Sixteen samples of each patch are as good as all, and a reshape.
    four = cv2.resize(depth, (4 * columns, 4 * rows), interpolation=cv2.INTER_NEAREST)
    samples = four.reshape(rows, 4, columns, 4).transpose(0, 2, 1, 3).reshape(rows, columns, 16)
    with np.errstate(divide="ignore"):
        inverse = np.where(samples > 0, 1 / samples, np.nan)
    known = ~np.isnan(inverse).all(axis=-1)
    if not known.any():
        return None
    middles = np.full((rows, columns), np.nanmedian(inverse), np.float32)
    middles[known] = np.nanmedian(inverse[known], axis=-1)
    deep = _PATCHES_DEEP if min(rows, columns) > _PATCHES_DEEP else 3
    middles = gaussian(np.asarray(cv2.medianBlur(middles, deep), dtype=np.float32), 0.8)
    smooth = cv2.resize(middles, (width, height), interpolation=cv2.INTER_LINEAR)
    return (1 / smooth).astype(np.float32)


def carry_loosely(target: Target, depth: Floats, source: Source) -> Aligned | None:
    """The photo in the frame's camera by `depth` [h, w], that of `patch_depth` at the target's small size. It
    is believed neither where the photo shows something well before what the patch means, nor where the frame has no
    depth. None where next to nothing of it can be believed."""
    pixel, render = target.pixel, target.small_render
    camera, small, small_rgb = source.camera, source.small_camera, source.small_rgb
    lookup = look_up(small, target.small_camera, depth, hiding_depth=source.small_depth, pixel=pixel)
    if lookup.confidence.sum() * pixel**2 < WORTH_A_LOOK:
        return None
    photo = sample(small_rgb, lookup)
    exposure = match_exposure(photo, render, lookup.confidence)
    flow = flow_to(render, np.where(lookup.valid[..., None], exposure.apply(photo), render), pixel, coarse=True)
    lookup = moved(lookup, flow, pixel)
    photo = np.where(lookup.valid[..., None], exposure.apply(sample(small_rgb, lookup)), render)
    error2 = squares(gaussian(photo - render, _PLAIN_PX / pixel)) / np.float32(3.0)
    alpha = np.float32(1.0) if target.small_alpha is None else target.small_alpha
    agreed = alpha * np.exp(-0.5 * error2 / _SAME_COLOUR**2) + (1 - alpha) * np.float32(_UNSEEN)
    worth = (target.small_depth > 0) & (lookup.density > _COARSEST)
    confidence = (lookup.confidence * agreed * worth).astype(np.float32)
    if pixel == 1:
        return Aligned(to_bytes(photo), lookup.confidence, confidence)
    # Smooth depth makes smooth look-ups: those of the full size are between these.
    scale = np.array([camera.width / small.width, camera.height / small.height], np.float32)
    p_r, valid = grown(lookup.p_r * scale, target.camera), grown(lookup.valid.astype(np.float32), target.camera) > 0.999
    density, *beliefs = (grown(one, target.camera) for one in (lookup.density, lookup.confidence, confidence))
    colours = sample_bytes(source.rgb, Lookup(p_r, valid, beliefs[0], density))
    geometry, confidence = (belief * valid for belief in beliefs)
    return Aligned(over(target.rgb, exposure.apply_to_bytes(colours), valid), geometry, confidence)
