"""What makes two candidates, or two questions, the same: hashes that every process and export agrees on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from difix3d.types import Candidate, Rating

_OTHER = {"a": "b", "b": "a"}


def candidate_key(candidate: Candidate) -> str:
    """64 hex digits over a candidate's frame, settings and pixels; not over where its file lies."""
    facts = [
        candidate.scene_id,
        candidate.trajectory,
        candidate.frame_index,
        candidate.fixer,
        candidate.sha256,
        list(candidate.references),
        candidate.timestep,
        candidate.seed,
        candidate.extra,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def canonical_pair(one: Candidate, other: Candidate) -> tuple[Candidate, Candidate]:
    """The two ordered by key: which is `a` tells nothing of fixer or quality, and is the same for every rater."""
    return (one, other) if candidate_key(one) <= candidate_key(other) else (other, one)


def item_key(one: Candidate, other: Candidate) -> str:
    """64 hex digits that name the question "which of the two?", in either order."""
    return item_of_keys(candidate_key(one), candidate_key(other))


def item_of_keys(one: str, other: str) -> str:
    """As item_key, of two candidates' keys."""
    keys = sorted((one, other))
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def canonical_rating(rating: Rating) -> Rating:
    """The same vote with its candidates in canonical order; choice, left_is and judgements turn with them."""
    a, b = canonical_pair(rating.candidate_a, rating.candidate_b)
    if a is rating.candidate_a:
        return rating
    return replace(
        rating,
        candidate_a=a,
        candidate_b=b,
        choice=_OTHER.get(rating.choice, rating.choice),
        left_is=_OTHER.get(rating.left_is, rating.left_is),
        on_a=rating.on_b,
        on_b=rating.on_a,
    )
