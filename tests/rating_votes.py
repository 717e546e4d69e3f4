"""Made-up candidates and votes on them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from difix3d.ratings.identity import canonical_pair
from difix3d.types import Candidate, Rating


def candidate(fixer: str = "render", index: int = 0, scene_id: str = "court", **changes) -> Candidate:
    path = f"renders/orbit/{index:05d}.png" if fixer == "render" else f"fixed/orbit/{fixer}/{index:05d}.png"
    made = Candidate(scene_id, "orbit", index, fixer, path, sha256=hashlib.sha256(path.encode()).hexdigest())
    return replace(made, **changes)


def vote(choice: str = "a", rater: str = "ann", index: int = 0, left_is: str = "a", **changes) -> Rating:
    a, b = canonical_pair(candidate("render", index), candidate("reproject", index, references=("00001.jpg",)))
    return replace(Rating(a, b, choice, left_is, rater, seconds=2.5), **changes)


def fixer_vote(winner: str, rater: str = "ann", index: int = 0) -> Rating:
    """A vote for the candidate of that fixer."""
    plain = vote(rater=rater, index=index)
    return replace(plain, choice="a" if plain.candidate_a.fixer == winner else "b")
