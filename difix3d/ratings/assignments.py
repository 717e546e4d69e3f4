"""What one transaction does with an assignment: write who is asked what, and read those that are still open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from difix3d.ratings.catalogue import Question
from difix3d.ratings.log import ASSIGNMENTS, NewItem, ensure_item, rater_number_of
from difix3d.ratings.schema import AssignmentRow, RaterRow, RatingRow, now


@dataclass(frozen=True)
class OpenAssignment:
    """One that nobody has answered."""

    token: str
    item_id: str
    rater: str
    left_is: str
    purpose: str
    own_upload: bool
    issued_at: datetime
    lease_s: float


def append_assignment(
    session: Session,
    question: Question,
    *,
    token: str,
    rater: str,
    left_is: str,
    purpose: str,
    own_upload: bool,
    lease_s: float,
    sizes: Mapping[str, int | None],
) -> None:
    """Write it, with the question where that is new. The same token again changes nothing. sizes: sha256 of a picture
    -> bytes."""
    connection = session.connection()
    if connection.scalar(select(ASSIGNMENTS.c.id).where(ASSIGNMENTS.c.id == token)) is not None:
        return
    rater_number = rater_number_of(session, rater)  # before the question, as votes do: see log.ensure_items
    expected = question.gold.expected if question.gold else None
    ensure_item(session, NewItem(question.a, question.b, question.kind, expected), sizes)
    connection.execute(
        insert(ASSIGNMENTS).values(
            id=token,
            rater_number=rater_number,
            item_id=question.item_id,
            left_is=left_is,
            purpose=purpose,
            own_upload=own_upload,
            issued_at=now(),
            lease_s=lease_s,
        )
    )


def open_assignments(session: Session, longest_lease_s: float) -> list[OpenAssignment]:
    """Those without a vote whose lease may still be held by the wall clock, oldest first."""
    answered = select(RatingRow.id).where(RatingRow.token == AssignmentRow.id).exists()
    query = (
        select(AssignmentRow, RaterRow.key)
        .join(RaterRow, RaterRow.number == AssignmentRow.rater_number)
        .where(AssignmentRow.issued_at > now() - timedelta(seconds=longest_lease_s), ~answered)
        .order_by(AssignmentRow.issued_at)
    )
    return [
        OpenAssignment(row.id, row.item_id, key, row.left_is, row.purpose, row.own_upload, row.issued_at, row.lease_s)
        for row, key in session.execute(query)
    ]
