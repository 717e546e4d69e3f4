"""Figures of the log, counted by the database: who wins, and whether raters prefer a side."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from difix3d.ratings.schema import CandidateRow, ItemRow, RatingRow

Z95 = 1.959964
"""Standard deviations to either side of the mean that hold 95 % of a normal distribution."""
_OUTCOMES = ("wins", "losses", "ties", "both_bad")
PairResults = list[tuple[str, str, str, int]]


def pair_results(session: Session, which: ColumnElement[bool]) -> PairResults:
    """(fixer of a, fixer of b, choice, votes) over pairs of different fixers."""
    a, b = aliased(CandidateRow), aliased(CandidateRow)
    query = (
        select(a.fixer, b.fixer, RatingRow.choice, func.count())
        .select_from(RatingRow)
        .join(ItemRow, ItemRow.id == RatingRow.item_id)
        .join(a, a.id == ItemRow.candidate_a)
        .join(b, b.id == ItemRow.candidate_b)
        .where(which, a.fixer != b.fixer)
        .group_by(a.fixer, b.fixer, RatingRow.choice)
    )
    return [(fixer_a, fixer_b, choice or "", votes) for fixer_a, fixer_b, choice, votes in session.execute(query)]


def side_bias(session: Session, which: ColumnElement[bool]) -> dict[str, Any]:
    """How often the picture on the left was chosen, of the votes for one. left_share: None without such votes."""
    query = (
        select(RatingRow.choice, RatingRow.left_is, func.count())
        .where(which, RatingRow.choice.in_(("a", "b")))
        .group_by(RatingRow.choice, RatingRow.left_is)
    )
    left = right = 0
    for choice, left_is, count in session.execute(query):
        if choice == left_is:
            left += count
        else:
            right += count
    total = left + right
    return {"left": left, "right": right, "left_share": round(left / total, 4) if total else None}


def win_rates(results: PairResults) -> dict[str, dict[str, Any]]:
    """fixer -> tally and {"against": {other: tally}}; see RatingStore.win_rates."""
    tallies: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_OUTCOMES, 0))
    for fixer_a, fixer_b, choice, votes in results:
        for fixer, other, side in ((fixer_a, fixer_b, "a"), (fixer_b, fixer_a, "b")):
            if choice in ("a", "b"):
                outcome = "wins" if choice == side else "losses"
            elif choice in ("tie", "both_bad"):
                outcome = "ties" if choice == "tie" else "both_bad"
            else:
                continue
            tallies[fixer, other][outcome] += votes
    rates: dict[str, dict[str, Any]] = {}
    for fixer in sorted({fixer for fixer, _ in tallies}):
        against = {other: tally for (one, other), tally in sorted(tallies.items()) if one == fixer}
        total = {name: sum(tally[name] for tally in against.values()) for name in _OUTCOMES}
        rates[fixer] = {**_with_rate(total), "against": {other: _with_rate(tally) for other, tally in against.items()}}
    return rates


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen in `count` draws (Wilson 1927)."""
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _with_rate(tally: dict[str, int]) -> dict[str, Any]:
    count = tally["wins"] + tally["losses"] + tally["ties"]
    if not count:
        return {**tally, "win_rate": None, "interval": None}
    share = (tally["wins"] + tally["ties"] / 2) / count
    return {**tally, "win_rate": round(share, 4), "interval": [round(end, 4) for end in wilson_interval(share, count)]}
