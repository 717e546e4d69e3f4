"""Run a long native call in a thread while a generator reports how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Seen = TypeVar("Seen")


def in_background(
    call: Callable[[], Any],
    observe: Callable[[], Seen],
    stop: Callable[[], None] | None = None,
    period_s: float = 0.25,
) -> Generator[Seen, None, Any]:
    """Run `call` in a thread; yield `observe()` whenever it changed; return the call's value or raise its error.

    Closing the generator calls `stop` and waits for the thread for a second at most: the thread is a daemon, so a
    call that cannot be stopped ends with its process.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = call()
        except BaseException as error:  # handed to the generator below, which raises it
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        last = None
        while thread.is_alive():
            seen = observe()
            if seen != last:
                last = seen
                yield seen
            thread.join(period_s)
    finally:
        if thread.is_alive():
            if stop:
                stop()
            thread.join(1.0)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


class Spent:
    """Seconds of wall time by phase: `with spent("match"): ...` adds the block's to what the phase has."""

    def __init__(self, *phases: str):
        self._seconds = dict.fromkeys(phases, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] += time.monotonic() - started

    @property
    def figures(self) -> dict[str, float]:
        """ "seconds_<phase>" of every phase, tenths."""
        return {f"seconds_{phase}": round(seconds, 1) for phase, seconds in self._seconds.items()}


class Countdown:
    """Seconds left of a phase, from its pace so far."""

    def __init__(self, total: int):
        self.total = total
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def left(self, done: int) -> float | None:
        """None before the first unit is done."""
        return round(self.seconds / done * max(0, self.total - done), 1) if done > 0 else None
