"""What there is to ask, and a question as it is shown: blind, never the same pixels twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter

from difix3d.ratings.candidates import Frames
from difix3d.ratings.identity import candidate_key, item_of_keys
from difix3d.ratings.schema import RATE
from difix3d.types import Candidate


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
