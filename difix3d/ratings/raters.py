"""What the votes of each rater say of that rater. Nobody is left out here: what is odd is flagged, with the reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import bdtrc

from difix3d.ratings.log import StoredRating
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.summary import wilson_interval

FEWEST_GOLD = 5
"""Answers to gold before anything is said of a rater: all of five are right by guessing once in 32."""
_ENOUGH_GOLD = 8
"""For a rater who is right 9 times in 10 to be told from a coin, mostly."""
_UNLIKELY = 0.05
_VERY_UNLIKELY = 0.001
_TOO_FAST_S = 0.6
"""Two pictures cannot be seen in less."""


def of_raters(votes: Sequence[StoredRating], flags: Mapping[int, list[str]] | None = None) -> list[dict[str, Any]]:
    """One entry per rater, most votes first: votes, gold, consistency, side, seconds, agreement, flags.

    votes: those that stand, for every purpose. flags: from more votes than these, None for these.
    """
    flags = flags_of_raters(votes) if flags is None else flags
    by_rater: dict[int, list[StoredRating]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater_number].append(vote)
    majority = _Majority(votes)
    entries = []
    for number, mine in by_rater.items():
        entries.append(
            {
                "rater": number,
                "votes": sum(vote.purpose == RATE for vote in mine),
                "gold": gold_accuracy(mine),
                "consistency": self_consistency(mine),
                "side": side_bias(mine),
                "seconds": seconds_per_vote(mine),
                "agrees_with_others": majority.share(mine),
                "late": sum(vote.late for vote in mine),
                "flags": flags.get(number, []),
            }
        )
    return sorted(entries, key=lambda entry: (-entry["votes"], entry["rater"]))


def flags_of_raters(votes: Sequence[StoredRating]) -> dict[int, list[str]]:
    """Number -> why, of every rater who is flagged. votes: those that stand, for every purpose."""
    by_rater: dict[int, list[StoredRating]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater_number].append(vote)
    flags = {number: _flags(gold_accuracy(mine), side_bias(mine), mine) for number, mine in by_rater.items()}
    return {number: found for number, found in sorted(flags.items()) if found}


def gold_accuracy(votes: Iterable[StoredRating]) -> dict[str, Any]:
    """answered (skips apart), right, accuracy, interval. A tie is right for a picture against itself only."""
    answers = [
        (vote.rating.choice, vote.expected) for vote in votes if vote.purpose == GOLD and vote.rating.choice != "skip"
    ]
    right = sum(_same(choice, expected) for choice, expected in answers)
    return {"answered": len(answers), "right": right, **_share(right, len(answers), "accuracy")}


def self_consistency(votes: Iterable[StoredRating]) -> dict[str, Any]:
    """repeats, same (the same answer with sides swapped), consistency, interval."""
    first: dict[tuple[int, str], str] = {}
    repeats: list[tuple[tuple[int, str], str]] = []
    for vote in votes:
        key = (vote.rater_number, vote.item_id)
        if vote.purpose == RATE:
            first[key] = vote.rating.choice
        elif vote.purpose == REPEAT:
            repeats.append((key, vote.rating.choice))
    pairs = [(first[key], choice) for key, choice in repeats if key in first and choice != "skip"]
    same = sum(_alike(one) == _alike(other) for one, other in pairs)
    return {"repeats": len(pairs), "same": same, **_share(same, len(pairs), "consistency")}


def side_bias(votes: Iterable[StoredRating]) -> dict[str, Any]:
    """left, right, left_share, interval, of votes for one picture; those on gold and repeats too."""
    chosen = [vote.rating.choice == vote.rating.left_is for vote in votes if vote.rating.choice in ("a", "b")]
    return {"left": sum(chosen), "right": len(chosen) - sum(chosen), **_share(sum(chosen), len(chosen), "left_share")}


def seconds_per_vote(votes: Iterable[StoredRating]) -> dict[str, Any]:
    """median, p10, p90; None without votes."""
    seconds = [vote.rating.seconds for vote in votes]
    if not seconds:
        return {"median": None, "p10": None, "p90": None}
    p10, median, p90 = np.percentile(seconds, (10, 50, 90))
    return {"median": round(float(median), 2), "p10": round(float(p10), 2), "p90": round(float(p90), 2)}


class _Majority:
    """What others said of the same question."""

    def __init__(self, votes: Sequence[StoredRating]):
        self._said: dict[str, Counter[str]] = defaultdict(Counter)
        for vote in votes:
            if vote.purpose == RATE and vote.rating.choice != "skip":
                self._said[vote.item_id][_alike(vote.rating.choice)] += 1

    def share(self, mine: Iterable[StoredRating]) -> float | None:
        """Of this rater's votes, how many agree with most of the others; where others are split, with half."""
        agrees = []
        for vote in mine:
            if vote.purpose != RATE or vote.rating.choice == "skip":
                continue
            choice = _alike(vote.rating.choice)
            others = self._said[vote.item_id] - Counter({choice: 1})
            if others:
                most = max(others.values())
                top = [said for said, count in others.items() if count == most]
                agrees.append((choice in top) / len(top))
        return round(float(np.mean(agrees)), 4) if agrees else None


def _flags(gold: dict[str, Any], side: dict[str, Any], mine: Sequence[StoredRating]) -> list[str]:
    flags = []
    if gold["answered"] >= FEWEST_GOLD:
        if gold["accuracy"] < 0.5:
            flags.append("below chance on gold")
        elif gold["answered"] >= _ENOUGH_GOLD and _at_least(gold["right"], gold["answered"]) > _UNLIKELY:
            flags.append("not above chance on gold")
    decided = side["left"] + side["right"]
    if decided and 2 * _at_least(max(side["left"], side["right"]), decided) < _VERY_UNLIKELY:
        flags.append(f"prefers the {'left' if side['left'] > side['right'] else 'right'} side")
    fast = sum(vote.rating.seconds < _TOO_FAST_S for vote in mine)
    if fast > len(mine) / 4:
        flags.append(f"{fast} of {len(mine)} votes in less than {_TOO_FAST_S} s")
    return flags


def _at_least(successes: int, trials: int) -> float:
    """Probability of so many heads or more of a fair coin."""
    return float(bdtrc(successes - 1, trials, 0.5))


def _same(choice: str, expected: str | None) -> bool:
    return choice == expected or (expected == "tie" and choice == "both_bad")


def _alike(choice: str) -> str:
    """Both good and both bad: neither is better."""
    return "tie" if choice == "both_bad" else choice


def _share(part: int, whole: int, name: str) -> dict[str, Any]:
    if not whole:
        return {name: None, "interval": None}
    return {name: round(part / whole, 4), "interval": [round(end, 4) for end in wilson_interval(part / whole, whole)]}
