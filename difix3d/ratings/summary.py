"""Figures of the log: who wins, and whether raters prefer a side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from difix3d.ratings.log import StoredRating
from difix3d.ratings.schema import RatingRow

Z95 = 1.959964
"""Standard deviations to either side of the mean that hold 95 % of a normal distribution."""
_SCORES = {"wins": 1.0, "losses": 0.0, "ties": 0.5}
_NEITHER = {"tie": "ties", "both_bad": "both_bad"}


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


def judged_by_others(votes: Sequence[StoredRating]) -> list[StoredRating]:
    """Votes, skips apart, on questions that not only the one who uploaded the scene has judged."""
    told = [vote for vote in votes if vote.rating.choice != "skip"]
    others = {vote.item_id for vote in told if not vote.own_upload}
    return [vote for vote in told if vote.item_id in others]


def win_rates(votes: Sequence[StoredRating]) -> dict[str, dict[str, Any]]:
    """fixer -> wins, losses, ties, both_bad (votes), pairs (questions), win_rate and interval (95 %) as `share_won`
    tells them, against {other fixer: the same}.

    votes: without skips; only those on pairs of different fixers are counted. A tie is half a win; both bad
    says of neither that it wins.
    """
    said: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        a, b, choice = vote.rating.candidate_a.fixer, vote.rating.candidate_b.fixer, vote.rating.choice
        if a == b:
            continue
        for fixer, other, side in ((a, b, "a"), (b, a, "b")):
            outcome = _NEITHER.get(choice) or ("wins" if choice == side else "losses")
            said[fixer, other][vote.item_id].append(outcome)
    rates: dict[str, dict[str, Any]] = {}
    for fixer in sorted({fixer for fixer, _ in said}):
        against = {other: questions for (one, other), questions in sorted(said.items()) if one == fixer}
        every = [outcomes for questions in against.values() for outcomes in questions.values()]
        told = {other: _with_rate(list(questions.values())) for other, questions in against.items()}
        rates[fixer] = {**_with_rate(every), "against": told}
    return rates


def share_won(questions: Collection[Sequence[float]]) -> dict[str, Any]:
    """win_rate and its interval (95 %), of the scores that votes gave on each question: 1 for one that was won, 0 lost,
    0.5 neither.

    A question counts once however many judged it: its score is the mean of its votes, win_rate the mean over questions,
    and the interval Wilson's for so many questions. Votes on one question are no independent draws.
    """
    share = sum(sum(scores) / len(scores) for scores in questions) / len(questions)
    interval = wilson_interval(share, len(questions))
    return {"win_rate": round(share, 4), "interval": [round(end, 4) for end in interval]}


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen in `count` draws (Wilson 1927)."""
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _with_rate(questions: Sequence[Sequence[str]]) -> dict[str, Any]:
    """questions: the outcomes of each."""
    every = [outcome for outcomes in questions for outcome in outcomes]
    scores = [[_SCORES[outcome] for outcome in outcomes if outcome in _SCORES] for outcomes in questions]
    judged = [each for each in scores if each]
    rate = share_won(judged) if judged else {"win_rate": None, "interval": None}
    return {**{name: every.count(name) for name in (*_SCORES, "both_bad")}, "pairs": len(judged), **rate}
