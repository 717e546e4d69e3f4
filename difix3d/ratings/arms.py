"""What is compared across frames: not single pictures but ways of making them.

How much of a fix a scene shows (extra["shown"], stages/strengths.py) is no way of its own: it follows from scene and
fixer.
"""

from __future__ import annotations

from typing import NamedTuple

from difix3d.types import Candidate


class Arm(NamedTuple):
    """fixer: its name; references: the rule by which they were chosen where the candidate says so
    (extra["reference_rule"]), else how many; timestep, passes: as text, "" where there is none."""

    fixer: str
    references: str
    timestep: str
    passes: str = ""

    def __str__(self) -> str:
        return " · ".join(part for part in self if part)


def arm_of(candidate: Candidate) -> Arm:
    """The way in which a candidate was made."""
    rule = candidate.extra.get("reference_rule")
    count = len(candidate.references)
    references = str(rule) if rule else f"{count} reference{'s' * (count != 1)}" if count else ""
    timestep = "" if candidate.timestep is None else f"t={candidate.timestep}"
    passes = candidate.extra.get("passes", 1)
    return Arm(candidate.fixer, references, timestep, f"{passes} passes" if passes != 1 else "")
