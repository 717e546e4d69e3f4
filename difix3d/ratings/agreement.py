"""How far raters agree: Krippendorff's alpha, for choices and for scores.

Notation (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): units u (questions), m_u values given to
unit u, coincidences o_ck = sum over units of (pairs of values c, k in u) / (m_u - 1), n_c = sum over k of o_ck,
n = sum of n_c;

    alpha = 1 - D_o / D_e = 1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck

with d_ck = [c != k] for nominal and (c - k)^2 for interval values. Units with a single value say nothing and are left
out. The interval is of a bootstrap over units, so it is of other questions to the same raters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOMINAL, INTERVAL = "nominal", "interval"
RESAMPLES = 1000


@dataclass(frozen=True)
class Alpha:
    """value: None where nothing can be said (no unit with two values, or only one value ever given); interval: 95 %;
    units: with two values or more; values: in those."""

    value: float | None
    interval: tuple[float, float] | None
    units: int
    values: int


def krippendorff_alpha(
    votes: Iterable[tuple[str, float]], level: str = NOMINAL, resamples: int = RESAMPLES, seed: int = 0
) -> Alpha:
    """votes: (unit, value) of every rater, values as numbers (for nominal ones: any that stand for a name)."""
    by_unit: dict[str, list[float]] = defaultdict(list)
    for unit, given in votes:
        by_unit[unit].append(given)
    shared = [values for values in by_unit.values() if len(values) > 1]
    names = sorted({value for values in shared for value in values})
    if not shared:
        return Alpha(None, None, 0, 0)
    index = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(shared), len(names)))
    for row, values in enumerate(shared):
        for each in values:
            counts[row, index[each]] += 1
    distance = _distance(np.array(names), level)
    sizes = counts.sum(axis=1)
    # Per unit: sum over pairs of values of their distance / (m_u - 1); a value is no pair with itself, but d_cc = 0.
    disagreement = np.einsum("uc,ck,uk->u", counts, distance, counts) / (sizes - 1)
    value = _alpha(disagreement.sum(), counts.sum(axis=0), distance)
    interval = None
    if value is not None and len(shared) > 1 and resamples:
        drawn = np.random.default_rng(seed).multinomial(len(shared), [1 / len(shared)] * len(shared), size=resamples)
        found = [_alpha(o, n, distance) for o, n in zip(drawn @ disagreement, drawn @ counts)]
        # A resample with one value only has nothing to disagree on: it is perfect agreement.
        low, high = np.percentile([1.0 if each is None else each for each in found], (2.5, 97.5))
        interval = (float(low), float(high))
    return Alpha(value, interval, len(shared), int(sizes.sum()))


def _alpha(disagreement: float, totals: NDArray[np.float64], distance: NDArray[np.float64]) -> float | None:
    n = totals.sum()
    expected = totals @ distance @ totals
    return None if expected == 0 else float(1 - (n - 1) * disagreement / expected)


def _distance(names: NDArray[np.float64], level: str) -> NDArray[np.float64]:
    apart = names[:, None] - names[None, :]
    return (apart != 0).astype(np.float64) if level == NOMINAL else apart**2
