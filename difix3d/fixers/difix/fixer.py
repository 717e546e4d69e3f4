"""Difix as one of the project's fixers: fetches its checkpoint when asked to, loads it at the first fix."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import CheckpointError, FixerError
from difix3d.events import Event, Progress
from difix3d.fixers.base import Demands
from difix3d.fixers.difix.checkpoint import fingerprint, licence_of, references_of
from difix3d.fixers.difix.cost import PUBLISHED_BYTES, teraflop, weights_bytes
from difix3d.fixers.difix.hub import PINNED_REVISIONS, PUBLISHED, fetch, is_hub_id, on_disk
from difix3d.hub.files import gigabytes
from difix3d.types import Frame, Reference, require_shape

if TYPE_CHECKING:
    from difix3d.fixers.difix.pipeline import DifixPipeline

DEFAULT_CHECKPOINT = PUBLISHED[0]


_LOADED: WeakValueDictionary[tuple[Any, ...], DifixPipeline] = WeakValueDictionary()
"""Gigabytes each, so whoever wants the same weights meanwhile (difix and difix-guided, two scenes) shares them."""
_ONE_LOADS = threading.Lock()


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
        self._asked_references = max_references
        self.settings: dict[str, Any] = {
            "checkpoint": self.name,
            "revision": PINNED_REVISIONS.get(self.checkpoint),
            "timestep": 199,
            "prompt": "remove degradation",
            "posterior": "mean",
        }
        self._learn()
        self._device = device
        self._pipeline: DifixPipeline | None = None
        self._loading = threading.Lock()

    def device(self) -> str:
        """ "cuda" where there is one, unless it was told otherwise."""
        if self._device == "auto":
            import torch

            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        return self._device

    def demands(self, width: int, height: int) -> Demands:
        folder, revision = self._here()
        missing: int | None = 0
        if folder is None:
            missing = PUBLISHED_BYTES if self.checkpoint in PUBLISHED else None
        size = PUBLISHED_BYTES if folder is None else weights_bytes(folder)
        return Demands(self.checkpoint, revision, missing, teraflop(width, height, 1 + self.max_references, size))

    def fetch(self, stage: str = "fix") -> Generator[Event, None, None]:
        """Download a Hub model that is not here, if this machine could hold it in memory."""
        folder, revision = self._here()
        if folder is None:
            yield Progress(stage, f"Asking the Hub for {self.checkpoint}")
            self._require_memory("cpu", PUBLISHED_BYTES if self.checkpoint in PUBLISHED else 0)
            _, revision = yield from fetch(self.checkpoint, stage=stage)
        self.settings["revision"] = revision
        self._learn()

    def load(self) -> None:
        """Raises CheckpointError where the weights cannot be had or do not fit into memory."""
        with self._loading:
            if self._pipeline is None:
                self._pipeline = self._loaded()

    def _loaded(self) -> DifixPipeline:
        folder, revision = self._here()
        if folder is None:
            for _ in self.fetch():
                pass
            folder, revision = self._here()
        assert folder is not None, "fetch raises where it cannot bring it"
        self._learn()  # somebody else may have brought it
        import torch

        from difix3d.fixers.difix.pipeline import DifixPipeline
        from difix3d.fixers.difix.precision import fast_dtype

        dtype, size = fast_dtype(torch.device(self.device())), weights_bytes(folder)
        self.settings |= {"revision": revision, "dtype": str(dtype).removeprefix("torch.")}
        changed_ns = last_change(folder)
        if revision is None:  # folders of one name may hold other weights: what raters saw is told by these
            self.settings["weights"] = fingerprint(folder.resolve(), changed_ns)
        key = (str(folder.resolve()), changed_ns, dtype, self.device())
        with _ONE_LOADS:
            if (known := _LOADED.get(key)) is not None:
                return known
            self._require_memory("cpu", size)
            if self.device() != "cpu":
                self._require_memory(self.device(), size * dtype.itemsize // torch.float32.itemsize)
            pipeline = DifixPipeline.from_pretrained(
                self.checkpoint, dtype=dtype, device=self.device(), revision=revision
            )
            _LOADED[key] = pipeline
            return pipeline

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. CheckpointError where the weights cannot be loaded, FixerError for a frame too large."""
        from PIL import Image

        for what, rgb in (("frame.rgb", frame.rgb), *((f"photo {each.name}", each.rgb) for each in references)):
            require_shape(what, rgb, ("H", "W", 3))
            if rgb.dtype != np.uint8:
                raise FixerError(f"{what}: expected uint8 from 0 to 255, got {rgb.dtype}")
        self.load()
        assert self._pipeline is not None
        photos = [Image.fromarray(reference.rgb) for reference in references[: self.max_references]]
        fixed = self._pipeline(
            Image.fromarray(frame.rgb),
            [photos] if photos else None,
            prompt=self.settings["prompt"],
            timestep=self.settings["timestep"],
            posterior=self.settings["posterior"],
        )
        return np.asarray(fixed.images[0])

    def _learn(self) -> None:
        """What the checkpoint says of itself, which of one on the Hub is known only once it is here."""
        self.licence = licence_of(self.checkpoint)
        asked = self._asked_references
        self.max_references = references_of(self.checkpoint) if asked is None else asked
        self.settings["max_references"] = self.max_references

    def _here(self) -> tuple[Path | None, str | None]:
        """The checkpoint's folder on this machine, and its commit; (None, the commit it will be at, if known)."""
        folder = Path(self.checkpoint)
        if folder.is_dir():
            return folder, None
        return on_disk(self.checkpoint) or (None, PINNED_REVISIONS.get(self.checkpoint))

    def _require_memory(self, device: str, needed: int) -> None:
        """CheckpointError where weights of that size do not fit now. They are read as float32 into the machine's
        memory, also on their way to a GPU."""
        import torch

        from difix3d.fixers.difix.memory import available_bytes

        free = available_bytes(torch.device(device))
        if free < needed:
            raise CheckpointError(
                f"{self.name} needs {gigabytes(needed)} of memory for its weights, and "
                f"{'this machine' if device == 'cpu' else 'the GPU'} has {gigabytes(free)} free. Close other programs, "
                "or choose another fixer."
            )


def makes_the_same(checkpoint: str, made: Mapping[str, Any]) -> bool:
    """Whether `checkpoint` (folder or Hub id), as it is now, makes of a raw render what a fixer of the settings `made`
    made of it. Where older settings do not say which weights they had, its name decides."""
    from difix3d.fixers.difix.pipeline import TIMESTEP

    if made.get("input") or made.get("timestep") not in (None, TIMESTEP):  # input: of guided.py, no raw render
        return False
    folder = Path(checkpoint)
    if folder.is_dir():
        if weights := made.get("weights"):
            return weights == fingerprint(folder.resolve(), last_change(folder))
        return made.get("checkpoint") == folder.resolve().name
    here = on_disk(checkpoint)
    revision = here[1] if here else PINNED_REVISIONS.get(checkpoint)
    return made.get("checkpoint") == checkpoint and (revision is None or made.get("revision") in (None, revision))


def last_change(folder: Path) -> int:
    """Of a checkpoint's files, in ns: trained again into the same folder, it is another one."""
    return max((path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()), default=0)
