"""How fast strangers may go: a bucket of tokens for each rater, in memory.

By rater and not by address: no address is kept. A rater costs nothing to make, so new ones have a bucket together.
A library for this (limits, slowapi) keeps its counts by address or in a server of its own; here it is one dict.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 50_000


class Buckets:
    """Each key may do `burst` things at once, and after that `per_second`. May be used by several threads."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic):
        self.burst, self.per_second = burst, per_second
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when that was)
        self._lock = threading.Lock()

    def take(self, key: str) -> bool:
        """Whether this key may go on now; counted if so."""
        with self._lock:
            now = self._clock()
            tokens, since = self._left.pop(key, (self.burst, now))
            tokens = min(self.burst, tokens + (now - since) * self.per_second)
            allowed = tokens >= 1
            self._left[key] = (tokens - 1 if allowed else tokens, now)
            while len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
            return allowed
