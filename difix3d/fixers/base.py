"""A fixer takes a broken render and reference photos and returns a clean frame of the same size.

Adding one: a file here with a class that follows Fixer, a line in the table in `difix3d/fixers/__init__.py`, and,
if it needs a library of its own, an extra in pyproject.toml. tests/fixers/test_fixers.py then tests it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difix3d.types import Frame, Reference


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

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB at the frame's own size. References come best first; more than max_references
        are ignored. Same input and seed, same output. FixerError says what it cannot work with."""
        ...
