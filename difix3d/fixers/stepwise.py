"""Fix a frame again with one photo more or less, and do only what that one photo asks for.

Most of the time of a fix goes into carrying each photo to the frame, which no other photo has a part in. A fixer that
does it in two steps can keep the first one's results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difix3d.kept import Kept
from difix3d.types import Frame, Reference

Fixed = tuple[NDArray[np.uint8], NDArray[np.float32] | None]
"""([H, W, 3] RGB, [H, W] in [0, 1]: how far the fix is trusted, None where the fixer does not say)"""

_AT_ONCE = 2


@runtime_checkable
class Stepwise(Protocol):
    """A Fixer whose fix(frame, references) is finish(frame, [carry(frame, one) for one in references])."""

    def carry(self, frame: Frame, reference: Reference) -> Any:
        """All that concerns this photo alone."""
        ...

    def finish(self, frame: Frame, carried: Sequence[Any]) -> Fixed:
        """The fix, from photos carried to this frame; as fix, without any the render or what it alone allows."""
        ...


class SupersededError(Exception):
    """Nobody waits for this fix any more: something else was asked for meanwhile."""


class CarriedPhotos:
    """Carried photos by name, the last few asked for. Threads may share it."""

    def __init__(self, most: int):
        self._kept: Kept[Any] = Kept(most)

    def fix(
        self,
        fixer: Stepwise,
        frame: Frame,
        wanted: Sequence[tuple[Hashable, Callable[[], Reference]]],
        stale: Callable[[], bool] = lambda: False,
    ) -> Fixed:
        """The frame fixed with the photos `wanted`, each (a name of frame and photo, how to load it), best first.

        stale: asked before each step; SupersededError once it says so. What was carried until then is kept.
        """

        def carried(name: Hashable, load: Callable[[], Reference]) -> Any:
            def make() -> Any:
                _go_on(stale)
                reference = load()
                _go_on(stale)
                return fixer.carry(frame, reference)

            return self._kept.get(name, make)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            photos = list(pool.map(lambda one: carried(*one), wanted))
        _go_on(stale)
        return fixer.finish(frame, photos)


def _go_on(stale: Callable[[], bool]) -> None:
    if stale():
        raise SupersededError
