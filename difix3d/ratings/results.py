"""Everything the votes say, as plain data: what `difix3d ratings` prints and a page can plot.

Only votes on which is better count for scores; gold and repeats count for raters. Questions that nobody but the one who
uploaded the scene has judged are left out of scores.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.ratings.agreement import INTERVAL, NOMINAL, Alpha, krippendorff_alpha
from difix3d.ratings.arms import arm_of
from difix3d.ratings.bradley_terry import fit_bradley_terry
from difix3d.ratings.filters import Chosen, VoteFilter, all_that_stand
from difix3d.ratings.log import StoredRating
from difix3d.ratings.raters import gold_accuracy, of_raters, seconds_per_vote, self_consistency, side_bias
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore
from difix3d.ratings.summary import Z95, judged_by_others, win_rates
from difix3d.types import ARTIFACT_TAGS, Candidate

_CODES = {"a": 0, "b": 1, "tie": 2, "both_bad": 2}
_RESAMPLES = 200
GROUPS: dict[str, Callable[[Candidate], str]] = {
    "fixer": lambda candidate: candidate.fixer,
    "references": lambda candidate: arm_of(candidate).references or "none",
    "timestep": lambda candidate: arm_of(candidate).timestep or "none",
    "arm": lambda candidate: str(arm_of(candidate)),
}
"""What scores are told by."""


def results(
    store: RatingStore,
    scene_id: str | None = None,
    without: Collection[int] = (),
    *,
    since: date | None = None,
    without_flagged: bool = False,
) -> dict[str, Any]:
    """Of all scenes or one, of all raters or some (see ratings/filters.py); which is part of the result."""
    wanted = VoteFilter(scene_id, since, tuple(sorted(without)), without_flagged)
    return results_of(wanted.chosen(all_that_stand(store)))


def results_of(chosen: Chosen) -> dict[str, Any]:
    """As `results`, of votes that are at hand."""
    votes = chosen.votes
    rated = [vote for vote in votes if vote.purpose == RATE]
    judged = judged_by_others(rated)
    scores = {name: scores_by(judged, group) for name, group in GROUPS.items()}
    return {
        "filters": chosen.record,
        "flagged": [{"rater": number, "flags": flags} for number, flags in chosen.flags.items()],
        "votes": len(rated),
        "pairs": len({vote.item_id for vote in rated}),
        "gold_votes": sum(vote.purpose == GOLD for vote in votes),
        "repeat_votes": sum(vote.purpose == REPEAT for vote in votes),
        "late_votes": sum(vote.late for vote in votes),
        "choices": dict(sorted(Counter(vote.rating.choice for vote in rated).items())),
        "per_day": dict(sorted(Counter(vote.created_at.date().isoformat() for vote in votes).items())),
        "alpha": {
            "choice": _told(_alpha_of_choices(rated)),
            "artifact_removal": _told(_alpha_of_scores(rated, "artifact_removal")),
            "faithfulness": _told(_alpha_of_scores(rated, "faithfulness")),
        },
        "gold": gold_accuracy(votes),
        "consistency": self_consistency(votes),
        "side_bias": side_bias(votes),
        "seconds": seconds_per_vote(votes),
        "raters": of_raters(votes, chosen.flags),
        "scores": scores,
        "win_rates": win_rates(judged),
        "win_matrix": win_matrix(judged, GROUPS["arm"], [each["name"] for each in scores["arm"]]),
        "fixer_matrix": win_matrix(judged, GROUPS["fixer"], [each["name"] for each in scores["fixer"]]),
        "scenes": _by_scene(rated),
        "tags": tags_by(judged, GROUPS["fixer"]),
    }


def scores_by(votes: Sequence[StoredRating], group: Callable[[Candidate], str]) -> list[dict[str, Any]]:
    """Bradley-Terry scores of groups of candidates, best first: name, score (logits about the mean), interval (95 %),
    votes.

    The interval reaches as far as the wider of two, at each end. A bootstrap over questions, since votes on one
    question are not independent: it sees how questions differ, and nothing where there is one, or where all say the
    same. And score +- 1.96 standard deviations of the fit, the normal approximation of the posterior at its maximum
    (Gelman et al., Bayesian Data Analysis, 3rd ed., 4.1): it takes votes as independent, with the prior of
    ratings/bradley_terry.py; votes tell differences only, so that it is of scores about their mean, as the scores are.
    """
    names, items, wins, ties = _tables(votes, group)
    if len(names) < 2:
        return []
    fitted = fit_bradley_terry(wins.sum(axis=0), ties.sum(axis=0))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(items, [1 / items] * items, size=_RESAMPLES)
    flat = np.concatenate([wins, ties], axis=1).reshape(items, -1)
    tables = (drawn @ flat).reshape(_RESAMPLES, 2, len(names), len(names))
    again = [fit_bradley_terry(won, tied, start=fitted).scores for won, tied in tables]
    low, high = np.percentile(again, (2.5, 97.5), axis=0)
    reach = Z95 * np.sqrt(np.diag(fitted.covariance))
    low, high = np.minimum(low, fitted.scores - reach), np.maximum(high, fitted.scores + reach)
    seen = (wins + wins.transpose(0, 2, 1) + ties).sum(axis=(0, 2))
    order = np.argsort(-fitted.scores)
    return [
        {
            "name": names[i],
            "score": round(float(fitted.scores[i]), 4),
            "interval": [round(float(low[i]), 4), round(float(high[i]), 4)],
            "votes": int(seen[i]),
        }
        for i in order
    ]


def win_matrix(
    votes: Sequence[StoredRating], group: Callable[[Candidate], str], names: Sequence[str] = ()
) -> dict[str, Any]:
    """names; wins[i][j]: how often i was preferred to j; ties[i][j] (with both bad): symmetric. names: their order, ()
    for that of the alphabet."""
    known, _, wins, ties = _tables(votes, group)
    order = [known.index(name) for name in names or known]
    return {
        "names": [known[place] for place in order],
        "wins": wins.sum(axis=0)[np.ix_(order, order)].astype(int).tolist(),
        "ties": ties.sum(axis=0)[np.ix_(order, order)].astype(int).tolist(),
    }


def tags_by(votes: Sequence[StoredRating], group: Callable[[Candidate], str]) -> dict[str, dict[str, Any]]:
    """group -> {"shown": showings with anything said of tags or scores, each tag: its share of them}."""
    shown: Counter[str] = Counter()
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in votes:
        rating = vote.rating
        if not (rating.on_a.tags or rating.on_b.tags):
            continue  # most do not tag at all: that says nothing of a picture
        for candidate, judgement in ((rating.candidate_a, rating.on_a), (rating.candidate_b, rating.on_b)):
            name = group(candidate)
            shown[name] += 1
            said[name].update(judgement.tags)
    return {
        name: {"shown": count, **{tag: round(said[name][tag] / count, 4) for tag in ARTIFACT_TAGS}}
        for name, count in sorted(shown.items())
    }


def _tables(
    votes: Sequence[StoredRating], group: Callable[[Candidate], str]
) -> tuple[list[str], int, NDArray[np.float64], NDArray[np.float64]]:
    """(names, questions, wins [questions, N, N], ties [questions, N, N]) of pairs of different groups."""
    pairs = [(vote, group(vote.rating.candidate_a), group(vote.rating.candidate_b)) for vote in votes]
    pairs = [row for row in pairs if row[1] != row[2]]
    names = sorted({name for _, *two in pairs for name in two})
    place = {name: number for number, name in enumerate(names)}
    items = {item: number for number, item in enumerate(dict.fromkeys(vote.item_id for vote, *_ in pairs))}
    wins = np.zeros((len(items), len(names), len(names)))
    ties = np.zeros_like(wins)
    for vote, name_a, name_b in pairs:
        item, a, b = items[vote.item_id], place[name_a], place[name_b]
        if vote.rating.choice == "a":
            wins[item, a, b] += 1
        elif vote.rating.choice == "b":
            wins[item, b, a] += 1
        else:
            ties[item, a, b] += 1
            ties[item, b, a] += 1
    return names, len(items), wins, ties


def _alpha_of_choices(votes: Sequence[StoredRating]) -> Alpha:
    """A, B or neither; of one and the same pair, whichever side it was shown on."""
    return krippendorff_alpha(
        ((vote.item_id, _CODES[vote.rating.choice]) for vote in votes if vote.rating.choice in _CODES), NOMINAL
    )


def _alpha_of_scores(votes: Sequence[StoredRating], name: str) -> Alpha:
    given = []
    for vote in votes:
        for side, judgement in (("a", vote.rating.on_a), ("b", vote.rating.on_b)):
            if (score := getattr(judgement, name)) is not None:
                given.append((f"{vote.item_id}{side}", float(score)))
    return krippendorff_alpha(given, INTERVAL)


def _by_scene(votes: Sequence[StoredRating]) -> dict[str, dict[str, Any]]:
    scenes: dict[str, list[StoredRating]] = defaultdict(list)
    for vote in votes:
        scenes[vote.rating.candidate_a.scene_id].append(vote)
    return {
        scene: {
            "votes": len(mine),
            "items": len({vote.item_id for vote in mine}),
            "alpha": _told(_alpha_of_choices(mine)),
            "scores": scores_by(judged_by_others(mine), GROUPS["fixer"]),
        }
        for scene, mine in sorted(scenes.items())
    }


def _told(alpha: Alpha) -> dict[str, Any]:
    return {
        "alpha": None if alpha.value is None else round(alpha.value, 4),
        "interval": None if alpha.interval is None else [round(end, 4) for end in alpha.interval],
        "units": alpha.units,
        "values": alpha.values,
    }
