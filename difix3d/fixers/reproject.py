"""Fix a render with the photos themselves: each is carried into the frame's camera by depth and blended where it fits.

No weights, no learning. Image-based rendering with the splats as geometry proxy (unstructured lumigraphs, Buehler et
al. 2001), each photo aligned to the render by optical flow before blending (Floating Textures, Eisemann et al. 2008).
Where no photo is believed the render stays, so nothing is ever torn open.

    surface -> look up -> exposure -> flow -> agreement with the render -> blend, feathered
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.fixers.alignment import Aligned, align_photos
from difix3d.fixers.base import Weightless
from difix3d.fixers.photometric import Floats, gaussian
from difix3d.fixers.sound import sound_frame, sound_photos
from difix3d.fixers.stepwise import Fixed
from difix3d.types import Frame, Reference

_PREFERENCE = 4
"""Power of the confidences: of two photos that both fit, the better one shows, not a mean that is softer than both."""
_BELIEVED = 1.5
"""Confidence is a product of doubts that are never all 1; from 1 / 1.5 on a photo replaces the render."""
_RENDER_SHARE = 1e-4
"""A photo believed to a tenth weighs as much."""
_FEATHER_PX = 3.0
_SEAM_PX = 1.0


class ReprojectFixer(Weightless):
    """Follows fixers.base.Fixer. Repeats exactly; `seed` changes nothing."""

    name = "reproject"
    licence = "Apache-2.0"
    max_references = 4
    needs_depth = True

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"method": "depth and flow", "max_references": self.max_references}

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. Without references, or where none of them fits, the render; so too where the frame has no
        depth to carry photos by. A reference without depth is used, but what is hidden from it is then told by colour
        alone.
        """
        return self.fix_with_trust(frame, references)[0]

    def fix_with_trust(
        self, frame: Frame, references: Sequence[Reference]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See fixers.base.Trusting: how far photos replaced the render."""
        frame, photos = sound_frame(frame), sound_photos(references[: self.max_references])
        return blend(frame.rgb, align_photos(frame, photos))

    def carry(self, frame: Frame, reference: Reference) -> list[Aligned]:
        """See fixers.stepwise.Stepwise. Empty where the photo shows nothing of the frame."""
        return align_photos(sound_frame(frame), sound_photos([reference]))

    def finish(self, frame: Frame, carried: Sequence[list[Aligned]]) -> Fixed:
        """See fixers.stepwise.Stepwise."""
        return blend(frame.rgb, [photo for each in carried[: self.max_references] for photo in each])


def blend(raw: NDArray[np.uint8], photos: Sequence[Aligned]) -> tuple[NDArray[np.uint8], Floats]:
    """(the photos where they are believed, the better one first, over the render `raw`, borders feathered inwards;
    [H, W] how far they cover it)."""
    if not photos:
        return raw.copy(), np.zeros(raw.shape[:2], np.float32)
    render: Floats = raw.astype(np.float32) / np.float32(255.0)
    confidence = np.stack([photo.confidence for photo in photos])
    shares = np.stack([gaussian(one, _SEAM_PX) for one in confidence**_PREFERENCE])
    # The render takes part a little: where photos end it is what the feather fades into, not their last row.
    total = shares.sum(axis=0) + np.float32(_RENDER_SHARE)
    fused = (_RENDER_SHARE / total)[..., None] * render
    for share, photo in zip(shares, photos):
        fused += (share / (total * np.float32(255.0)))[..., None] * photo.rgb
    # Eroded before it is blurred: the blend has faded out where a photo's last pixels begin.
    cover = np.minimum(confidence.max(axis=0) * np.float32(_BELIEVED), 1.0)
    eroded = np.asarray(cv2.erode(cover, np.ones((3, 3), np.uint8)), dtype=np.float32)
    cover = gaussian(eroded, _FEATHER_PX)
    fixed = render + cover[..., None] * (fused - render)
    return (np.clip(fixed, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), np.clip(cover, 0.0, 1.0)
