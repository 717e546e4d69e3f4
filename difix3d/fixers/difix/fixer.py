"""Difix as one of the project's fixers: loads its checkpoint at the first fix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import CheckpointError
from difix3d.fixers.difix.checkpoint import licence_of, references_of
from difix3d.fixers.difix.hub import PINNED_REVISIONS, is_hub_id
from difix3d.types import Frame, Reference

if TYPE_CHECKING:
    from difix3d.fixers.difix.pipeline import DifixPipeline

DEFAULT_CHECKPOINT = "nvidia/difix_ref"


def default_checkpoint() -> str:
    """$DIFIX3D_FIXER where it is a checkpoint folder or a Hub id, else nvidia/difix_ref."""
    named = os.environ.get("DIFIX3D_FIXER", "")
    return named if named and (Path(named).is_dir() or is_hub_id(named)) else DEFAULT_CHECKPOINT


class DifixFixer:
    """Follows fixers.base.Fixer. The posterior's mean is used, so a fix repeats exactly and `seed` changes nothing.

    checkpoint: folder or Hub id. max_references: as the checkpoint was trained (difix: 0, difix_ref: 1) unless given;
    the same weights run with more.
    """

    needs_depth = False

    def __init__(self, checkpoint: str | None = None, *, max_references: int | None = None, device: str = "auto"):
        self.checkpoint = checkpoint or default_checkpoint()
        folder = Path(self.checkpoint)
        if not folder.is_dir() and not is_hub_id(self.checkpoint):
            raise CheckpointError(f"No checkpoint at {self.checkpoint}: expected a folder or a Hub id owner/model")
        self.name = folder.resolve().name if folder.is_dir() else self.checkpoint
        self.licence = licence_of(self.checkpoint)
        self.max_references = references_of(self.checkpoint) if max_references is None else max_references
        self.settings: dict[str, Any] = {
            "checkpoint": self.name,
            "revision": PINNED_REVISIONS.get(self.checkpoint),
            "timestep": 199,
            "prompt": "remove degradation",
            "posterior": "mean",
            "max_references": self.max_references,
        }
        self._device = device
        self._pipeline: DifixPipeline | None = None

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. Raises CheckpointError where the weights cannot be loaded."""
        from PIL import Image

        pipeline = self._loaded()
        photos = [Image.fromarray(reference.rgb) for reference in references[: self.max_references]]
        fixed = pipeline(
            Image.fromarray(frame.rgb),
            [photos] if photos else None,
            prompt=self.settings["prompt"],
            timestep=self.settings["timestep"],
            posterior=self.settings["posterior"],
        )
        return np.asarray(fixed.images[0])

    def _loaded(self) -> DifixPipeline:
        if self._pipeline is None:
            import torch

            from difix3d.fixers.difix.pipeline import DifixPipeline

            device = self._device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            # Half precision's 11 bits are enough for 8-bit pictures; bfloat16's 8 are not.
            dtype = torch.float32 if device == "cpu" else torch.float16
            self._pipeline = DifixPipeline.from_pretrained(self.checkpoint, dtype=dtype, device=device)
            self.settings |= {"revision": self._pipeline.revision, "dtype": str(dtype).removeprefix("torch.")}
        return self._pipeline
