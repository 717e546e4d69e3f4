"""Jobs take turns on a small machine: each wants all its cores and gigabytes, so the others wait and say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from difix3d.machine import cores

_LOOK_AGAIN_S = 0.5


def places() -> int:
    """How many jobs run at once here: one for every two cores this process may use, at most four."""
    return min(4, max(1, cores() // 2))


@contextmanager
def turn(folder: Path, on_wait: Callable[[], None], count: int | None = None) -> Iterator[None]:
    """Hold one of `count` places among all processes that name the same `folder`; `on_wait` is called once if all are
    taken. The system frees the place of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{place}.lock") for place in range(count or places())]
    held = _first_free(locks)
    if held is None:
        on_wait()
    while held is None:
        time.sleep(_LOOK_AGAIN_S)
        held = _first_free(locks)
    try:
        yield
    finally:
        held.release()


def _first_free(locks: list[FileLock]) -> FileLock | None:
    """One of `locks`, now held; None where all are taken."""
    for lock in locks:
        try:
            lock.acquire(blocking=False)
            return lock
        except Timeout:
            continue
    return None
