"""Raters as people: what they agreed to, what they want to be called, and going away with everything they said.

A rater's key is a keyed hash that the app makes; no name of an account and no address is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from difix3d.errors import RatingError
from difix3d.ratings.log import rater_number_of
from difix3d.ratings.schema import (
    VOTE,
    AssignmentRow,
    ConsentRow,
    JudgementRow,
    MarksRow,
    RaterRow,
    RatingRow,
    WithdrawalRow,
    new_id,
)

MAX_PSEUDONYM = 80


@dataclass(frozen=True)
class Consent:
    """version: of the text that was agreed to; licence: under which votes may be published."""

    version: str
    licence: str
    given_at: datetime


@dataclass(frozen=True)
class Person:
    """number: what exports call them; votes: given and standing, for any purpose."""

    number: int
    pseudonym: str
    consents: tuple[Consent, ...]
    votes: int


@dataclass(frozen=True)
class Withdrawn:
    """What is gone: votes (with those changed and undone), marks (pictures of marked regions)."""

    votes: int
    marks: int


def give_consent(session: Session, rater_key: str, version: str, licence: str) -> None:
    """Once for each version and licence; the same again changes nothing."""
    for name, value, most in (("version", version, 50), ("licence", licence, 100)):
        if not 0 < len(value) <= most:
            raise RatingError(f"{name} of consent: expected 1 to {most} characters, got {len(value)}")
    number = rater_number_of(session, rater_key)
    same = (ConsentRow.rater_number == number, ConsentRow.version == version, ConsentRow.licence == licence)
    if session.scalar(select(ConsentRow.number).where(*same).limit(1)) is None:
        session.add(ConsentRow(rater_number=number, version=version, licence=licence))


def set_pseudonym(session: Session, rater_key: str, pseudonym: str) -> None:
    """ "" takes it back."""
    number = rater_number_of(session, rater_key)
    session.execute(update(RaterRow).where(RaterRow.number == number).values(pseudonym=pseudonym))


def find_person(session: Session, rater_key: str) -> Person | None:
    """None for one who never voted nor consented, or withdrew."""
    rater = session.scalar(select(RaterRow).where(RaterRow.key == rater_key))
    if rater is None:
        return None
    rows = session.scalars(
        select(ConsentRow).where(ConsentRow.rater_number == rater.number).order_by(ConsentRow.number)
    )
    later = select(RatingRow.supersedes).where(
        RatingRow.rater_number == rater.number, RatingRow.supersedes.is_not(None)
    )
    standing = select(func.count()).where(
        RatingRow.rater_number == rater.number, RatingRow.action == VOTE, RatingRow.id.not_in(later)
    )
    consents = tuple(Consent(row.version, row.licence, row.given_at) for row in rows)
    return Person(rater.number, rater.pseudonym, consents, session.scalar(standing) or 0)


def withdraw(session: Session, rater_key: str) -> Withdrawn:
    """Delete everything a rater said: votes, judgements, marks, comments, consents, pseudonym, what they were asked.

    What stays: the rater's number without their key, so that a later rater is never taken for them; that this number
    withdrew, when and how many votes (so that a copy made before can be told from one made after); the pictures and
    pairs, which the program made. Exports and backups that were made before are not reached.
    """
    rater = session.scalar(select(RaterRow).where(RaterRow.key == rater_key).with_for_update())
    if rater is None:
        return Withdrawn(0, 0)
    own = select(RatingRow.id).where(RatingRow.rater_number == rater.number)
    marked = select(JudgementRow.marks_sha256).where(
        JudgementRow.rating_id.in_(own), JudgementRow.marks_sha256.is_not(None)
    )
    marks = set(session.scalars(marked))
    votes = session.scalar(select(func.count()).where(RatingRow.rater_number == rater.number, RatingRow.action == VOTE))
    fast = {"synchronize_session": False}
    session.execute(delete(JudgementRow).where(JudgementRow.rating_id.in_(own)), execution_options=fast)
    still = set(session.scalars(select(JudgementRow.marks_sha256).where(JudgementRow.marks_sha256.in_(marks))))
    session.execute(delete(MarksRow).where(MarksRow.sha256.in_(marks - still)), execution_options=fast)
    session.execute(delete(RatingRow).where(RatingRow.rater_number == rater.number), execution_options=fast)
    for table in (AssignmentRow, ConsentRow):
        session.execute(delete(table).where(table.rater_number == rater.number), execution_options=fast)
    session.add(WithdrawalRow(rater_number=rater.number, votes=votes or 0, marks=len(marks)))
    rater.key, rater.pseudonym = f"withdrawn-{new_id()}", ""
    session.flush()
    return Withdrawn(votes or 0, len(marks))
