"""Jobs take turns on a small machine: each wants all its cores and gigabytes, so the others wait and say so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from difix3d.machine import cores

_LOOK_AGAIN_S = 0.5
_WAITING = ".waiting"


def places() -> int:
    """How many jobs run at once here: one for every two cores this process may use, at most four."""
    return min(4, max(1, cores() // 2))


@contextmanager
def turn(folder: Path, on_wait: Callable[[int], None], count: int | None = None) -> Iterator[None]:
    """Hold one of `count` places among all processes that name the same `folder`, in the order in which they came.

    on_wait: while all are taken, called with how many came before and wait as well, whenever that changes. The system
    frees the place of a process that dies, and its place in the queue.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{place}.lock") for place in range(count or places())]
    ticket = FileLock(folder / f"{time.time_ns():020d}-{os.getpid()}-{threading.get_ident()}{_WAITING}")
    told, held = None, None
    with ticket:
        try:
            while held is None:
                ahead = _before(Path(ticket.lock_file))
                held = _first_free(locks) if ahead == 0 else None
                if held is None:
                    if ahead != told:
                        on_wait(ahead)
                        told = ahead
                    time.sleep(_LOOK_AGAIN_S)
        finally:
            Path(ticket.lock_file).unlink(missing_ok=True)
    try:
        yield
    finally:
        held.release()


def _before(ticket: Path) -> int:
    """How many with an older ticket wait. The tickets of those who died are removed."""
    waiting = 0
    for older in sorted(ticket.parent.glob(f"*{_WAITING}")):
        if older.name >= ticket.name:
            break
        lock = FileLock(older)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting += 1
            continue
        older.unlink(missing_ok=True)
        lock.release()
    return waiting


def _first_free(locks: list[FileLock]) -> FileLock | None:
    """One of `locks`, now held; None where all are taken."""
    for lock in locks:
        try:
            lock.acquire(blocking=False)
            return lock
        except Timeout:
            continue
    return None
