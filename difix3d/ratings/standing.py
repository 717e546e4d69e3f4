"""The votes that stand, in memory and kept up to date from the log: what a sampler asks of a thousand times a minute.

Each call of `refresh` reads only entries of the log that are new, whoever wrote them. On PostgreSQL an entry with a
lower number may be committed after one with a higher: numbers that were skipped are asked for again for a minute.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from difix3d.ratings.schema import GOLD, RATE, REPEAT, VOTE, RaterRow, RatingRow, WithdrawalRow
from difix3d.ratings.store import RatingStore

_GAP_S = 60.0


@dataclass(frozen=True)
class StandingVote:
    """number: its place in the log; token: of the showing that it answers."""

    number: int
    token: str
    item_id: str
    rater: str
    purpose: str
    choice: str
    left_is: str
    own_upload: bool


class Standing:
    """Not for several threads at once.

    votes: item -> votes of others than the uploader that say something (skips apart)
    choices: item -> choice -> votes of all
    asked: (rater, purpose) -> item -> the vote that stands
    given: rater -> votes ever given; tokens: of every vote ever
    changed: items whose votes changed since somebody emptied it
    """

    def __init__(self, store: RatingStore):
        self._store = store
        self._reset()

    def _reset(self) -> None:
        self.votes: Counter[str] = Counter()
        self.gold_votes: Counter[str] = Counter()
        self.choices: dict[str, Counter[str]] = defaultdict(Counter)
        self.asked: dict[tuple[str, str], dict[str, StandingVote]] = defaultdict(dict)
        self.tokens: set[str] = set()
        self.changed: set[str] = set()
        self.given: Counter[str] = Counter()
        self.count = 0
        self._by_id: dict[str, StandingVote] = {}
        self._last = 0
        self._gaps: dict[int, float] = {}
        self._withdrawals = 0

    def refresh(self) -> None:
        """Take in what was written since."""
        with self._store.engine.connect() as connection:
            withdrawals = connection.scalar(select(func.max(WithdrawalRow.number))) or 0
            if withdrawals != self._withdrawals:  # rows are gone that were counted here
                items = set(self.votes)
                self._reset()
                self.changed |= items
                self._withdrawals = withdrawals
            self._forget_old_gaps()
            fresh = RatingRow.number > self._last
            query = (
                select(
                    RatingRow.number,
                    RatingRow.id,
                    RatingRow.token,
                    RatingRow.action,
                    RatingRow.item_id,
                    RaterRow.key,
                    RatingRow.purpose,
                    RatingRow.choice,
                    RatingRow.left_is,
                    RatingRow.own_upload,
                    RatingRow.supersedes,
                )
                .join(RaterRow, RaterRow.number == RatingRow.rater_number)
                .where(or_(fresh, RatingRow.number.in_(list(self._gaps))) if self._gaps else fresh)
                .order_by(RatingRow.number)
            )
            rows = connection.execute(query).all()
        for number, id_, token, action, item, rater, purpose, choice, left_is, own, supersedes in rows:
            self._see(number)
            if supersedes:
                self._remove(supersedes)
            if action == VOTE:
                self.tokens.add(token)
                self._add(id_, StandingVote(number, token, item, rater, purpose, choice or "", left_is or "", own))

    def _see(self, number: int) -> None:
        if number <= self._last:
            self._gaps.pop(number, None)
            return
        if self._store.engine.dialect.name != "sqlite":
            now = time.monotonic()
            self._gaps |= dict.fromkeys(range(max(self._last + 1, number - 1000), number), now)
        self._last = number

    def _forget_old_gaps(self) -> None:
        if self._gaps:
            oldest = time.monotonic() - _GAP_S
            self._gaps = {number: since for number, since in self._gaps.items() if since > oldest}

    def _add(self, id_: str, vote: StandingVote) -> None:
        self._by_id[id_] = vote
        self.asked[vote.rater, vote.purpose][vote.item_id] = vote
        self.given[vote.rater] += 1
        self._count(vote, 1)

    def _remove(self, id_: str) -> None:
        vote = self._by_id.pop(id_, None)
        if vote is None:
            return
        mine = self.asked[vote.rater, vote.purpose]
        if mine.get(vote.item_id) is vote:
            del mine[vote.item_id]
        self._count(vote, -1)

    def _count(self, vote: StandingVote, by: int) -> None:
        if vote.purpose == GOLD:
            self.gold_votes[vote.item_id] += by
        if vote.purpose != RATE:
            return
        self.count += by
        self.choices[vote.item_id][vote.choice] += by
        if vote.choice != "skip" and not vote.own_upload:
            self.votes[vote.item_id] += by
            self.changed.add(vote.item_id)

    def judged(self, rater: str, purpose: str = RATE) -> dict[str, StandingVote]:
        """item -> the vote of this rater that stands; {} for none."""
        return self.asked.get((rater, purpose), {})

    def to_repeat(self, rater: str, behind: int) -> list[StandingVote]:
        """Votes of this rater that can be asked again: decided, not repeated yet, with `behind` votes after them."""
        repeated = self.judged(rater, REPEAT)
        votes = sorted(self.judged(rater).values(), key=lambda vote: vote.number)
        return [vote for vote in votes[: max(0, len(votes) - behind)] if vote.item_id not in repeated and
                vote.choice != "skip"]  # fmt: skip
