"""A fixer takes a broken render and reference photos and returns a clean frame of the same size.

Adding one: a file here with a class that follows Fixer, a line in the table in `difix3d/fixers/__init__.py`, and,
if it needs a library of its own, an extra in pyproject.toml. tests/fixers/test_fixers.py then tests it at once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difix3d.events import Event
from difix3d.types import Frame, Reference


@dataclass(frozen=True)
class Demands:
    """What a fix takes on this machine, found without loading anything.

    checkpoint: where the weights are from, "" for none; revision: their commit, where one is known; download_bytes:
    still to come from the Hub: 0 where all is here, None where only the Hub could say; teraflop: arithmetic of one
    frame, None where nobody counted it.
    """

    checkpoint: str = ""
    revision: str | None = None
    download_bytes: int | None = 0
    teraflop: float | None = None


@runtime_checkable
class Fixer(Protocol):
    """name: as in the table, or the checkpoint's; licence: of its weights, shown to people; max_references: how
    many references it can use (0: none); needs_depth: whether references must carry rendered depth;
    settings: what a Candidate records (timestep, revision, ...), JSON-ready."""

    name: str
    licence: str
    max_references: int
    needs_depth: bool
    settings: dict[str, Any]

    def device(self) -> str:
        """What it runs on here, as torch calls it: "cpu", "cuda"."""
        ...

    def demands(self, width: int, height: int) -> Demands:
        """Of a frame of that size with as many references as it can use."""
        ...

    def fetch(self, stage: str = "fix") -> Generator[Event, None, None]:
        """Bring what it needs to this machine, telling how far it is on behalf of `stage`; closing it stops, and the
        next call goes on. Without it, `load` does the same in silence. CheckpointError says what is in the way."""
        ...

    def load(self) -> None:
        """Into memory, so that the first fix takes no longer than the others. `fix` does it where nobody has."""
        ...

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB at the frame's own size. References come best first; more than max_references
        are ignored. Same input and seed, same output. FixerError says what it cannot work with."""
        ...


@runtime_checkable
class Trusting(Protocol):
    """A Fixer that mixes photos with the render, and says where its fix is to be trusted. How much of it a scene shows
    is measured there (stages/strengths.py)."""

    def fix_with_trust(
        self, frame: Frame, references: Sequence[Reference]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(as fix; [H, W] float32 in [0, 1]: 0 where the render stayed, 1 where the fix replaced it, whatever a scene
        shows of it then)."""
        ...


class Weightless:
    """The part of Fixer about weights and devices, for one that has none and computes on the CPU."""

    def device(self) -> str:
        return "cpu"

    def demands(self, width: int, height: int) -> Demands:
        return Demands()

    def fetch(self, stage: str = "fix") -> Generator[Event, None, None]:
        yield from ()

    def load(self) -> None:
        pass
