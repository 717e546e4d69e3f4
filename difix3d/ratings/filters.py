"""Which votes are looked at: of one scene, since a day, without some raters. Nothing is left out that is not named.

Whether a rater is odd (ratings/raters.py) is told from all that they ever said, whatever the filter: one scene of
theirs holds too few checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

from difix3d.errors import ConfigError
from difix3d.ratings.log import StoredRating
from difix3d.ratings.raters import flags_of_raters
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore


@dataclass(frozen=True)
class VoteFilter:
    """scene: its id, None for all; since: a day in UTC, with it; without: numbers of raters; without_flagged: leave out
    everybody who is flagged, too."""

    scene: str | None = None
    since: date | None = None
    without: tuple[int, ...] = ()
    without_flagged: bool = False

    @property
    def leaves_out(self) -> bool:
        """Whether it leaves out votes of the scenes that it names."""
        return bool(self.since or self.without or self.without_flagged)

    def is_before(self, vote: StoredRating) -> bool:
        """Whether it was given before `since`."""
        return self.since is not None and vote.created_at.astimezone(UTC).date() < self.since

    def chosen(self, votes: Sequence[StoredRating]) -> Chosen:
        """votes: those that stand, of all scenes, for every purpose."""
        flags = flags_of_raters(votes)
        without = set(self.without) | (set(flags) if self.without_flagged else set())
        kept, too_old, of_raters, total = [], 0, 0, 0
        here: set[int] = set()
        for vote in votes:
            if self.scene is not None and vote.rating.candidate_a.scene_id != self.scene:
                continue
            total += 1
            here.add(vote.rater_number)
            if self.is_before(vote):
                too_old += 1
            elif vote.rater_number in without:
                of_raters += 1
            else:
                kept.append(vote)
        record = {
            "scene": self.scene,
            "since": self.since.isoformat() if self.since else None,
            "without_raters": sorted(without),
            "without_flagged": self.without_flagged,
            "votes_before": too_old,
            "votes_of_left_out_raters": of_raters,
            "votes_left_out": total - len(kept),
        }
        return Chosen(kept, record, {number: why for number, why in flags.items() if number in here})


@dataclass(frozen=True)
class Chosen:
    """votes: what is left; record: the filter and what it left out, for JSON; flags: rater number -> why, of every
    rater who is flagged and voted on the scene, left out or not."""

    votes: list[StoredRating]
    record: dict[str, Any]
    flags: dict[int, list[str]]


def all_that_stand(store: RatingStore, up_to: int | None = None) -> list[StoredRating]:
    """What `VoteFilter.chosen` takes. up_to: the log as it was when this number was its last."""
    return list(store.stream(up_to=up_to, purposes=(RATE, GOLD, REPEAT), marks=False))


def vote_filter(
    scene: str | None = None, since: str = "", without: Iterable[int | str] = (), without_flagged: bool = False
) -> VoteFilter:
    """Of what a person wrote. ConfigError for a day or a rater that is none."""
    try:
        day = date.fromisoformat(since.strip()) if since.strip() else None
    except ValueError as error:
        raise ConfigError(f"since: {since[:40]!r} is no day. Write it as 2026-11-28.") from error
    try:
        numbers = tuple(sorted({int(each) for each in without}))
    except ValueError as error:
        raise ConfigError("without: expected numbers of raters, as `difix3d ratings` lists them.") from error
    return VoteFilter(scene, day, numbers, without_flagged)
