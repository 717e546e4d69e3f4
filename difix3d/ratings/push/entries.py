"""Entries of the log as lines of JSON for a repository that is only ever added to.

A changed vote names the one whose place it takes ("supersedes"), an undone one has a line of its own ("retract"), and
so has a rater who took everything back ("withdrawal": drop the lines of that user_id from before).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from difix3d.ratings.export import raw
from difix3d.ratings.log import StoredRating, read_votes, select_votes
from difix3d.ratings.schema import RETRACT, RatingRow, SchemaRow, WithdrawalRow, now
from difix3d.ratings.store import RatingStore
from difix3d.types import Candidate, Judgement

_SETTLED_S = 60.0
"""PostgreSQL may commit a lower number after a higher one, but not this much later."""
_OF_THE_MOMENT = ("superseded", "superseded_by", "superseded_as")
"""What changes of a line when more is voted."""


@dataclass(frozen=True)
class Entry:
    """number: in the log; candidates: whose pictures the line is about; marks: PNGs by the names that it calls them."""

    number: int
    line: dict[str, Any]
    candidates: tuple[Candidate, ...] = ()
    marks: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Withdrawal:
    number: int
    user_id: int
    line: dict[str, Any]


def database_id(store: RatingStore) -> str:
    """Tells one database from another at the same place: numbers begin anew in each."""
    with Session(store.engine) as session:
        return str(session.scalar(select(func.min(SchemaRow.created_at))))


def newest_settled(store: RatingStore) -> int:
    """The number up to which nothing will be added any more; 0 for an empty log."""
    query = select(func.max(RatingRow.number))
    if store.engine.dialect.name != "sqlite":
        query = query.where(RatingRow.created_at < now() - timedelta(seconds=_SETTLED_S))
    with Session(store.engine) as session:
        return session.scalar(query) or 0


def id_of(store: RatingStore, number: int) -> str | None:
    """Of the entry with that number; None where there is none, or it was withdrawn."""
    with Session(store.engine) as session:
        return session.scalar(select(RatingRow.id).where(RatingRow.number == number))


def last_given(store: RatingStore) -> int:
    """The highest number that the log gave, to an entry that was withdrawn since as well."""
    sqlite = store.engine.dialect.name == "sqlite"
    query = (
        "SELECT seq FROM sqlite_sequence WHERE name = 'ratings'"
        if sqlite
        else "SELECT last_value FROM pg_sequences WHERE schemaname || '.' || sequencename = "
        "pg_get_serial_sequence('ratings', 'number')"
    )
    with Session(store.engine) as session:
        return int(session.scalar(text(query)) or 0)


def entries(store: RatingStore, after: int, up_to: int) -> Iterator[Entry]:
    """Votes and retractions with after < number <= up_to, in their order."""
    with Session(store.engine) as session:
        wanted = (RatingRow.number > after, RatingRow.number <= up_to)
        supersedes = dict(session.execute(select(RatingRow.number, RatingRow.supersedes).where(*wanted)).all())
        retractions = session.scalars(select(RatingRow).where(*wanted, RatingRow.action == RETRACT)).all()
        found = [_retraction(row) for row in retractions]
        while votes := read_votes(session, select_votes(None, True, after, up_to)):
            found += [_vote(vote, supersedes.get(vote.number)) for vote in votes]
            after = votes[-1].number
    yield from sorted(found, key=lambda entry: entry.number)


def withdrawals(store: RatingStore, after: int) -> list[Withdrawal]:
    """Those with a number above `after`."""
    with Session(store.engine) as session:
        rows = session.scalars(select(WithdrawalRow).where(WithdrawalRow.number > after).order_by(WithdrawalRow.number))
        return [
            Withdrawal(
                row.number,
                row.rater_number,
                {"action": "withdrawal", "user_id": row.rater_number, "created_at": row.withdrawn_at.isoformat()},
            )
            for row in rows
        ]


def _retraction(row: RatingRow) -> Entry:
    line = {
        "action": "retract",
        "number": row.number,
        "id": row.id,
        "item_id": row.item_id,
        "user_id": row.rater_number,
        "created_at": row.created_at.isoformat(),
        "supersedes": row.supersedes,
    }
    return Entry(row.number, line)


def _vote(vote: StoredRating, supersedes: str | None) -> Entry:
    rating = vote.rating
    line = {name: value for name, value in raw(vote).items() if name not in _OF_THE_MOMENT}
    marks = []
    for side, judgement in (("on_a", rating.on_a), ("on_b", rating.on_b)):
        if judgement.marks:
            name = _name_of_marks(judgement)
            marks.append((name, judgement.marks))
            line[side] = {**line[side], "marks": name}
    line |= {"action": "vote", "supersedes": supersedes}
    return Entry(vote.number, line, (rating.candidate_a, rating.candidate_b), tuple(marks))


def _name_of_marks(judgement: Judgement) -> str:
    return f"marks/{hashlib.sha256(judgement.marks or b'').hexdigest()}.png"
