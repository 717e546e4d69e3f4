"""Difix that starts from the photos: what it repairs is not the raw render, but the render with photos carried into it
by depth and blended where they fit, as the fixer `reproject` leaves it.

The weights are Difix's own, trained on raw renders; what changes is that much of the frame already shows the truth, so
that Difix is left with seams, holes and what no photo shows. Whether people prefer that is for ratings to say: its
fixes are candidates of their own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.events import Event
from difix3d.fixers import GUIDED
from difix3d.fixers.base import Demands
from difix3d.fixers.difix.fixer import DifixFixer
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.fixers.sound import sound_frame
from difix3d.types import Frame, Reference


class GuidedDifixFixer:
    """Follows fixers.base.Fixer. checkpoint and device: as for DifixFixer. All references are carried into the frame;
    as many as the checkpoint was trained with are also shown to it."""

    needs_depth = True
    max_references = ReprojectFixer.max_references

    def __init__(self, checkpoint: str | None = None, *, device: str = "auto"):
        self.difix = DifixFixer(checkpoint, device=device)
        self._reproject = ReprojectFixer()
        self.name = f"{GUIDED}{self.difix.name}"

    @property
    def licence(self) -> str:
        """Difix's, known for sure once its weights are here."""
        return self.difix.licence

    @property
    def settings(self) -> dict[str, Any]:
        """Difix's, which it completes once its weights are loaded."""
        shown = self.difix.max_references
        return {
            **self.difix.settings,
            "input": "photos carried by depth and flow",
            "max_references": self.max_references,
            "references_shown": shown,
        }

    def device(self) -> str:
        return self.difix.device()

    def demands(self, width: int, height: int) -> Demands:
        """Difix's: carrying photos is little beside it."""
        return self.difix.demands(width, height)

    def fetch(self, stage: str = "fix") -> Generator[Event, None, None]:
        yield from self.difix.fetch(stage)

    def load(self) -> None:
        self.difix.load()

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. Without depth or references, and where no photo fits, what Difix makes of the render."""
        shown = references[: self.difix.max_references]
        return self.difix.fix(replace(frame, rgb=self.composite(frame, references)), shown, seed=seed)

    def composite(self, frame: Frame, references: Sequence[Reference]) -> NDArray[np.uint8]:
        """[H, W, 3] uint8: what Difix is given. At full strength, whatever a scene shows of `reproject`: Difix can mend
        detail that is pixels off, and not bring back what was mixed away."""
        frame = sound_frame(frame)
        if not references or not (frame.depth > 0).any():
            return frame.rgb
        return self._reproject.fix(frame, references)
