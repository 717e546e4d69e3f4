"""How much each fixed frame should count when it is distilled into the 3D scene: 0 is left out.

p = (w + m p0) / (n + m): w of n votes preferred the fix to the raw render of this frame (a tie is half), p0 what the
Bradley-Terry scores of all votes say of this way of fixing against the render, m votes' worth of it. weight = p where
p >= 1/2; a fix that is more likely worse than the render, or that most call bad with the render, is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from difix3d.ratings.arms import Arm, arm_of
from difix3d.ratings.bradley_terry import fit_bradley_terry
from difix3d.ratings.candidates import RENDER, Frames
from difix3d.ratings.identity import canonical_pair, item_key
from difix3d.ratings.store import RatingStore
from difix3d.types import Candidate

PRIOR_VOTES = 2.0


def frame_weights(store: RatingStore, frames: Iterable[Frames]) -> list[dict[str, Any]]:
    """One entry per fix of these frames: scene_id, trajectory, frame_index, fixer, image_path, sha256, weight, p and
    votes.

    frames: of scenes, from candidates_of.
    """
    said: dict[str, Counter[str]] = defaultdict(Counter)
    outcomes: Counter[tuple[Arm, Arm, str]] = Counter()
    for vote in store.stream(marks=False):
        if vote.own_upload:
            continue  # nobody is the only judge of their own upload
        said[vote.item_id][vote.rating.choice] += 1
        outcomes[arm_of(vote.rating.candidate_a), arm_of(vote.rating.candidate_b), vote.rating.choice] += 1
    over_render = _over_render(outcomes)
    entries = []
    for scene_frames in frames:
        for render, *fixes in scene_frames.values():
            for fix in fixes:
                entries.append(_entry(render, fix, said, over_render))
    return entries


def _entry(
    render: Candidate, fix: Candidate, said: dict[str, Counter[str]], over_render: dict[Arm, float]
) -> dict[str, Any]:
    votes = said.get(item_key(render, fix), Counter())
    fix_is = "a" if canonical_pair(render, fix)[0] is fix else "b"
    decided = votes["a"] + votes["b"] + votes["tie"]
    p0 = over_render.get(arm_of(fix), 0.5)
    p = (votes[fix_is] + votes["tie"] / 2 + PRIOR_VOTES * p0) / (decided + PRIOR_VOTES)
    bad = votes["both_bad"] > decided
    return {
        "scene_id": fix.scene_id,
        "trajectory": fix.trajectory,
        "frame_index": fix.frame_index,
        "fixer": fix.fixer,
        "image_path": fix.image_path,
        "sha256": fix.sha256,
        "weight": 0.0 if bad or p < 0.5 else round(p, 4),
        "p": round(p, 4),
        "votes": decided + votes["both_bad"],
    }


def _over_render(outcomes: Counter[tuple[Arm, Arm, str]]) -> dict[Arm, float]:
    """Way of fixing -> how likely it is preferred to the raw render, a tie counted half."""
    arms = {
        arm: number for number, arm in enumerate(sorted({arm for one, other, _ in outcomes for arm in (one, other)}))
    }
    render = next((number for arm, number in arms.items() if arm.fixer == RENDER), None)
    if render is None:
        return {}
    wins, ties = np.zeros((len(arms), len(arms))), np.zeros((len(arms), len(arms)))
    for (one, other, choice), count in outcomes.items():
        a, b = arms[one], arms[other]
        if a == b:
            continue
        if choice == "a":
            wins[a, b] += count
        elif choice == "b":
            wins[b, a] += count
        elif choice == "tie":
            ties[a, b] += count
            ties[b, a] += count
    fitted = fit_bradley_terry(wins, ties)
    return {
        arm: fitted.probabilities(number, render)[0] + fitted.probabilities(number, render)[2] / 2
        for arm, number in arms.items()
        if number != render
    }
