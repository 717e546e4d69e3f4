"""When a fit does what: everything by the share of its budget that is spent (`fraction`, 0 to 1).

Not by step numbers, since a step takes 5 ms on one machine and 100 ms on another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

_HALF_RESOLUTION_UNTIL, _HALF_RESOLUTION_STEPS = 0.3, 800
REFINE_FROM, REFINE_UNTIL, REFINE_EVERY = 0.04, 0.8, 0.025
REFINE_EVERY_STEPS = 20
"""At least so many steps between two rounds, so that gradients are averages over several photos."""
_GROWN_AT = 0.55
_SH_DEGREE_FROM = (0.15, 0.35, 0.55)
_LONG_STEPS, _SHORT_STEPS, _FACTOR = 2000, 1000, 5.0
_LARGEST_FACTOR, _SMALLEST_FACTOR = 8.0, 1.0
_EARLY = 0.02
"""Before this share of the budget the pace says nothing yet about the number of steps there will be."""
_SETTLED_FROM, _SETTLED_SHARE, _SETTLED_DB = 0.4, 0.15, 0.05
"""Settled: past 40 % of the budget, when its last 15 % brought less than 0.05 dB."""
_LOST_AFTER, _LOST_FROM = 0.25, 0.75
"""Nothing better for this share of the budget: the photos are being learned by heart. Told past three quarters of it:
while learning rates are high scores go up and down, and some captures (a toy on a bed, a shell) gain all that they gain
from 60 % on. Taken for lost before, they ended early and about a decibel worse."""
_LAST_SHARE = 0.25
"""A fit that has settled, or went back to its best state, still gets this share of the time it took, to lower its
learning rates: worth some dB."""


class Clock:
    """What share of a budget is spent: seconds or steps (0: no such limit), whichever is further."""

    def __init__(self, seconds: float, max_steps: int):
        self._budget = seconds, max_steps
        self._started = time.monotonic()
        self._bend = (0.0, 0.0, 1.0)
        self.hurried = False

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def fraction(self, steps: int) -> float:
        """0 to 1; past a `hurry`, the rest of the schedule goes by in a part of the time it would have taken."""
        at, value, pace = self._bend
        return value + (self._plain(steps) - at) * pace

    def hurry(self, steps: int, fraction: float | None = None) -> None:
        """From now on, go from `fraction` (None: from here) to 1 in _LAST_SHARE of what has been spent, or in what is
        left where that is less. Only the first call counts."""
        if not self.hurried:
            spent = self._plain(steps)
            value = spent if fraction is None else fraction
            left = min(1.0 - spent, _LAST_SHARE * spent)
            self._bend = (spent, value, max(1.0, (1.0 - value) / max(left, 1e-9)))
            self.hurried = True

    def left(self, steps: int) -> float | None:
        """Seconds until the fraction is 1, at the pace so far; None before any of it is done."""
        spent = self._plain(steps)
        if spent <= 0:
            return None
        return max(0.0, self.seconds() / spent * (1.0 - self.fraction(steps)) / self._bend[2])

    def _plain(self, steps: int) -> float:
        seconds, max_steps = self._budget
        return max(self.seconds() / seconds if seconds > 0 else 0.0, steps / max_steps if max_steps > 0 else 0.0)


def learning_rate_factor(expected_steps: float) -> float:
    """How much larger than 3DGS' the learning rates should be for a run of so many steps.

    Five times is best for about 1,000 to 2,000 steps (30 s on two cores), half of it for 8,000; 3DGS' own are for
    30,000. For 930 seven times is a little worse (benchmarks/RESULTS.md), most where backgrounds are white or plain:
    those captures come to rest only as rates fall. For 500 five and eight came out alike, eight a little sharper.
    """
    steps = max(expected_steps, 1.0)
    factor = _FACTOR * math.sqrt(max(_SHORT_STEPS / steps, 1.0) * min(_LONG_STEPS / steps, 1.0))
    return min(_LARGEST_FACTOR, max(_SMALLEST_FACTOR, factor))


def learning_rates(fraction: float, steps: int) -> tuple[float, float]:
    """Factors on 3DGS' learning rates, (all but the means', the means'), after so many steps in that share."""
    factor = learning_rate_factor(steps / fraction if fraction > _EARLY else _LONG_STEPS)
    fade = 0.5 + 0.5 * math.cos(math.pi * fraction)
    return factor * (0.1 + 0.9 * fade), factor * 0.01**fraction


def at_half_resolution(fraction: float, steps: int) -> bool:
    """Whether photos are still fitted at half their size: for the first 30 %, and not for more than 800 steps, by when
    it has done what it can. Few photos are known by heart soon after, so the best state must not come before."""
    return fraction < _HALF_RESOLUTION_UNTIL and steps < _HALF_RESOLUTION_STEPS


def sh_degree(fraction: float, most: int) -> int:
    """View dependence comes late: before shapes are there it would explain what they should."""
    return sum(fraction >= start for start in _SH_DEGREE_FROM[:most])


def splat_count(fraction: float, first: int, most: int) -> int:
    """How many splats there should be: from `first`, which is no more than `most`, to `most`, rising geometrically."""
    grown = min(1.0, max(0.0, (fraction - REFINE_FROM) / (_GROWN_AT - REFINE_FROM)))
    return round(first * (most / first) ** grown)


def is_lost(best: float, now: float) -> bool:
    """Whether a fit has got worse elsewhere since its best state, at the share `best` of its budget."""
    return now >= _LOST_FROM and now - best >= _LOST_AFTER


def settled(curve: Sequence[tuple[float, float]]) -> bool:
    """Whether the last part of a (fraction, dB) curve rises no more."""
    now = curve[-1][0]
    before = [value for fraction, value in curve if fraction <= now - _SETTLED_SHARE]
    recent = [value for fraction, value in curve if fraction > now - _SETTLED_SHARE]
    return now >= _SETTLED_FROM and bool(before) and max(recent) < max(before) + _SETTLED_DB
