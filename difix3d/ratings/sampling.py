"""Which pair to show next, and on which side: least-voted first, blind, never the same pixels twice."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter

from difix3d.ratings.candidates import Frames, candidates_of
from difix3d.ratings.identity import candidate_key, item_of_keys
from difix3d.ratings.schema import RATE, new_id
from difix3d.ratings.store import RatingStore
from difix3d.types import Candidate

__all__ = ["PairToRate", "RatingProgress", "candidates_of", "next_pair", "progress"]


@dataclass(frozen=True)
class PairToRate:
    """Two candidates in canonical order, which of them is shown on the left (a | b), and the token that the vote
    on this showing must carry. purpose: RATE | GOLD | REPEAT, which nobody who rates is told."""

    candidate_a: Candidate
    candidate_b: Candidate
    left_is: str
    token: str
    purpose: str = RATE

    @property
    def left(self) -> Candidate:
        return self.candidate_a if self.left_is == "a" else self.candidate_b

    @property
    def right(self) -> Candidate:
        return self.candidate_b if self.left_is == "a" else self.candidate_a


@dataclass(frozen=True)
class RatingProgress:
    """judged: pairs that the rater has voted on or skipped, of `total` that can be asked now."""

    judged: int
    total: int


def next_pair(
    frames: Iterable[Frames], store: RatingStore, rater: str, rng: random.Random | None = None
) -> PairToRate | None:
    """A pair that this rater has not judged, of those with the fewest votes one at random; None when all are judged.

    frames: one mapping per scene, from `candidates_of`. rng: decides among equals and the side.
    """
    rng = rng or random.SystemRandom()
    questions = questions_of(frames)
    scenes = sorted({a.scene_id for a, _ in questions.values()})
    judged = store.judged_by(rater, scenes)
    votes = store.votes_per_item(scenes)
    open_items = [item for item in questions if item not in judged]
    if not open_items:
        return None
    fewest = min(votes.get(item, 0) for item in open_items)
    a, b = questions[rng.choice([item for item in open_items if votes.get(item, 0) == fewest])]
    return PairToRate(a, b, left_is=rng.choice("ab"), token=new_id())


def progress(frames: Iterable[Frames], store: RatingStore, rater: str) -> RatingProgress:
    """How many of the pairs there are this rater has judged."""
    questions = questions_of(frames)
    judged = store.judged_by(rater, sorted({a.scene_id for a, _ in questions.values()}))
    return RatingProgress(len(judged & questions.keys()), len(questions))


def questions_of(frames: Iterable[Frames]) -> dict[str, tuple[Candidate, Candidate]]:
    """item -> its pair in canonical order: every two candidates of a frame that differ in pixels. Of candidates
    with the same pixels only one is asked."""
    questions = {}
    for scene_frames in frames:
        for candidates in scene_frames.values():
            by_pixels: dict[str, tuple[str, Candidate]] = {}
            for key, candidate in sorted(((candidate_key(each), each) for each in candidates), key=itemgetter(0)):
                by_pixels.setdefault(candidate.sha256, (key, candidate))
            for (key_a, a), (key_b, b) in combinations(by_pixels.values(), 2):
                questions[item_of_keys(key_a, key_b)] = (a, b)
    return questions
