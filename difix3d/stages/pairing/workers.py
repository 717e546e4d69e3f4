"""Units on all cores: one process for each that a core and memory can be found for, fed one unit after the other.

A fit's pictures are small, so two fits on a core each are done sooner than one after the other on both. A process is
reached by a pipe: when either side dies the other one notices, and nothing is left running.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from difix3d.errors import Difix3DError
from difix3d.machine import cores, free_memory_bytes
from difix3d.stages.pairing.unit import Unit, make_unit

_BYTES_EACH = 1.5 * 2**30
"""Of a worker: torch, kernels, photos and splats of a scene at 480 px."""
_LOOK_S = 0.5


@dataclass(frozen=True)
class Said:
    """share: of the unit that is done; problem: why it cannot be, then the last of that unit."""

    unit: Unit
    share: float
    problem: str = ""

    @property
    def ended(self) -> bool:
        return self.share == 1.0 or bool(self.problem)


def worker_count(units: int, renderer: str, asked: int = 0) -> int:
    """How many at once. asked: 0 leaves it to the machine; a GPU is used by one."""
    if asked:
        return min(asked, max(1, units))
    if renderer == "gsplat":
        return 1
    memory = int(free_memory_bytes() // _BYTES_EACH)
    return max(1, min(cores(), memory, units))


def run_units(units: Sequence[Unit], workers: int) -> Iterator[Said | None]:
    """Make the units; None at least twice a second where nothing is new. Closing this stops them at once.

    One worker is this very process. What is no Difix3DError in a unit is a bug: RuntimeError with its traceback.
    """
    if workers > 1:
        yield from _in_processes(units, workers)
        return
    for unit in units:
        try:
            with contextlib.closing(make_unit(unit)) as shares:  # type: ignore[type-var]
                for share in shares:
                    yield Said(unit, min(share, 0.99))
        except Difix3DError as error:
            yield Said(unit, 0.0, error.message)
        else:
            yield Said(unit, 1.0)


def _in_processes(units: Sequence[Unit], workers: int) -> Iterator[Said | None]:
    context = multiprocessing.get_context("spawn")  # threads of torch and of the kernels do not survive a fork
    left = list(reversed(units))
    busy: dict[Connection, Unit] = {}
    processes = []
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, max(1, cores() // workers)), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            busy[ours] = left.pop()
            _hand(ours, busy[ours])
        while busy:
            ready = wait(list(busy), _LOOK_S)
            if not ready:
                yield None
            for pipe in ready:
                assert isinstance(pipe, Connection)
                said = _heard(pipe, busy[pipe])
                if said.ended:
                    del busy[pipe]
                    if left and not pipe.closed:
                        busy[pipe] = left.pop()
                        _hand(pipe, busy[pipe])
                yield said
        for unit in reversed(left):
            yield Said(unit, 0.0, "no process is left to make it. Run the same command again.")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _hand(pipe: Connection, unit: Unit) -> None:
    with contextlib.suppress(OSError):  # that the process is gone is heard next
        pipe.send(unit)


def _heard(pipe: Connection, unit: Unit) -> Said:
    try:
        share, problem, bug = pipe.recv()
    except (EOFError, OSError):
        pipe.close()
        return Said(unit, 0.0, "its process was killed, perhaps for want of memory. Run the same command again.")
    if bug:
        raise RuntimeError(f"{unit.label}: {bug}")
    return Said(unit, share, problem)


def _work(pipe: Any, threads: int) -> None:
    """The worker's process: units in, (share, problem, traceback) out, until the other side is gone."""
    import torch

    torch.set_num_threads(threads)
    try:
        while True:
            unit = pipe.recv()
            try:
                for share in make_unit(unit):
                    pipe.send((min(share, 0.99), "", ""))
                pipe.send((1.0, "", ""))
            except Difix3DError as error:
                pipe.send((0.0, error.message, ""))
            except (EOFError, BrokenPipeError):
                raise
            except Exception:  # a bug: raised on the other side, with this traceback
                pipe.send((0.0, "", traceback.format_exc()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
