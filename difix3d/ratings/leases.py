"""How long a question that was given to a rater is theirs, and what a clock that jumps does to that.

The process that gave a question out goes by its monotonic clock, which no one sets. Others, and a server that was
started again, have only the wall-clock times in the database. A lease that seems to begin in the future was written
before the clock was set back: it is over, so that a jump by a year blocks no question for a year. A jump forward ends
leases early. Both ways the worst is that two raters are asked the same question, which does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

LEASE_S = 600.0
"""Long enough to look closely at one pair, short enough that a closed tab does not hold it up."""
_REMEMBERED = 100_000
_AHEAD = timedelta(seconds=5)
"""Two servers at one database do not agree to the second."""


def lease_is_held(issued_at: datetime, lease_s: float, at: datetime) -> bool:
    """By wall-clock times alone."""
    return -_AHEAD <= at - issued_at < timedelta(seconds=lease_s)


class Leases:
    """Those that this process gave out, by its monotonic clock. Not for several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._ends: dict[str, float] = {}

    def give(self, token: str, lease_s: float) -> None:
        """From now on. The same token again begins anew."""
        self._ends.pop(token, None)
        self._ends[token] = self._clock() + lease_s
        while len(self._ends) > _REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def held(self, token: str) -> bool | None:
        """None for a token that this process did not give out, or so long ago that it was forgotten."""
        end = self._ends.get(token)
        return None if end is None else self._clock() < end
