"""Krippendorff's alpha against his own worked example, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from difix3d.ratings.agreement import INTERVAL, NOMINAL, krippendorff_alpha

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units, "." not coded.
DATA = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def votes() -> list[tuple[str, float]]:
    rows = [line.split() for line in DATA.strip().splitlines()]
    return [(f"unit {unit}", float(value)) for row in rows for unit, value in enumerate(row) if value != "."]


@pytest.mark.parametrize(("level", "published"), [(NOMINAL, 0.743), (INTERVAL, 0.849)])
def test_it_is_the_published_value(level: str, published: float) -> None:
    alpha = krippendorff_alpha(votes(), level)
    assert alpha.value == pytest.approx(published, abs=5e-4)
    assert (alpha.units, alpha.values) == (11, 40)
    assert alpha.interval is not None and alpha.interval[0] < published < alpha.interval[1] <= 1.0


def test_the_order_of_votes_and_the_names_of_values_do_not_matter() -> None:
    shuffled = [(unit, 7 - 3 * value) for unit, value in reversed(votes())]
    assert krippendorff_alpha(shuffled).value == pytest.approx(krippendorff_alpha(votes()).value)


def test_raters_who_guess_agree_by_chance_only() -> None:
    rng = np.random.default_rng(1)
    alpha = krippendorff_alpha([(str(unit), float(rng.integers(3))) for unit in range(300) for _ in range(5)])
    assert abs(alpha.value) < 0.05 and alpha.interval[0] < 0 < alpha.interval[1]


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Raters who copy the truth with probability 0.7 and guess otherwise: alpha is 0.49 (0.7 squared)."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(100):
        drawn = []
        for unit in range(120):
            truth = rng.integers(2)
            drawn += [(str(unit), float(truth if rng.random() < 0.7 else rng.integers(2))) for _ in range(5)]
        low, high = krippendorff_alpha(drawn, resamples=300).interval
        covered.append(low < 0.49 < high)
    assert 0.88 <= np.mean(covered) <= 1.0


@pytest.mark.parametrize("few", [[], [("u", 1.0)], [("u", 1.0), ("u", 1.0)], [("u", 1.0), ("v", 2.0)]])
def test_nothing_is_said_where_nothing_can_be(few: list[tuple[str, float]]) -> None:
    alpha = krippendorff_alpha(few)
    assert alpha.value is None and alpha.interval is None
