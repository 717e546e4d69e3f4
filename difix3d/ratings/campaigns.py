"""Old against new: the same frames by a checkpoint and by its parent, judged blind before all other questions.

Which questions are of a campaign, and which of their two pictures the new checkpoint made, is in a table of its own.
Raters are not told, sides are drawn as ever, and equal pixels are never a question (sampling.questions_of).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from difix3d.ratings.log import NewItem, StoredRating, ensure_items
from difix3d.ratings.schema import CampaignRow
from difix3d.ratings.store import RatingStore
from difix3d.ratings.summary import judged_by_others, share_won
from difix3d.types import Candidate

_SCORES = {"tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True)
class Match:
    """One frame by both, in canonical order. new_is: a | b."""

    item_id: str
    a: Candidate
    b: Candidate
    new_is: str


def enter(store: RatingStore, matches: Iterable[Match]) -> None:
    """Ask these before all else. A question that is there already joins the campaign with the votes that it has."""
    found = list(matches)

    def write(session: Session) -> None:
        known = _newest(session)
        ensure_items(session, [NewItem(match.a, match.b) for match in found], {})
        for match in found:
            if known.get(match.item_id) != match.new_is:
                session.execute(insert(CampaignRow).values(item_id=match.item_id, new_is=match.new_is))

    store.write(write)


def entered(store: RatingStore) -> dict[str, str]:
    """Item of a campaign -> which of its pictures is the new checkpoint's, a | b."""
    with Session(store.engine) as session:
        return _newest(session)


def _newest(session: Session) -> dict[str, str]:
    rows = session.execute(select(CampaignRow.item_id, CampaignRow.new_is).order_by(CampaignRow.number))  # last wins
    return dict(rows.all())


def outcomes(new_is: Mapping[str, str], votes: Sequence[StoredRating]) -> list[dict[str, Any]]:
    """One for each new checkpoint and old one that were judged: new, old (names), new_weights, old_weights (what tells
    two of one name apart, "" where nothing does), votes, wins, losses, ties (with both bad), frames, win_rate,
    interval (95 %) and views (scene -> numbers of the frames of `heldout` that were judged).

    new_is: see `entered`; votes: those that stand. A frame counts once however many judged it (see `share_won`), a tie
    or both bad being half a win. Frames that only the scene's uploader judged are left out.
    """
    frames: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    views: dict[tuple[str, ...], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for vote in judged_by_others(votes):
        side, said = new_is.get(vote.item_id), vote.rating
        if side is None:
            continue
        new, old = (said.candidate_a, said.candidate_b) if side == "a" else (said.candidate_b, said.candidate_a)
        score = _SCORES.get(said.choice, float(said.choice == side))
        pair = new.fixer, old.fixer, weights_of(new), weights_of(old)
        frames[pair][vote.item_id].append(score)
        views[pair][new.scene_id].add(new.frame_index)
    found = []
    for both, scores in sorted(frames.items()):
        new_name, old_name, new_weights, old_weights = both
        every = [score for of_frame in scores.values() for score in of_frame]
        found.append(
            {
                "new": new_name,
                "old": old_name,
                "new_weights": new_weights,
                "old_weights": old_weights,
                "votes": len(every),
                "wins": every.count(1.0),
                "losses": every.count(0.0),
                "ties": every.count(0.5),
                "frames": len(scores),
                **share_won(scores.values()),
                "views": {scene_id: sorted(judged) for scene_id, judged in sorted(views[both].items())},
            }
        )
    return found


def weights_of(candidate: Candidate) -> str:
    """What a candidate says of the weights that made it."""
    return str(candidate.extra.get("weights") or candidate.extra.get("revision") or "")
