"""Tables of what people were shown and what they said of it.

Append-only: no row is changed or deleted, but by a rater who withdraws (ratings/people.py). A changed mind is a new
vote that supersedes the old one, an undo is a row with action "retract" that does. A vote counts while no row
supersedes it.

A change here needs a migration in migrations/versions, and SCHEMA_VERSION to go up by one: a test compares the two.

Types are those that SQLite and PostgreSQL share. `number` gives the order of the log; ids are made by the client.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 4
CHOICES = ("a", "b", "tie", "both_bad", "skip")
VOTE, RETRACT = "vote", "retract"
RATE, GOLD, REPEAT = "rate", "gold", "repeat"
"""What a showing is for: to learn which is better; to learn of the rater, as the answer is known; to learn whether
they say the same again."""


def new_id() -> str:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, the rest random, so that ids sort by time."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time. SQLite forgets the zone, so it is turned to UTC on the way in and named UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    pass


class SchemaRow(Base):
    """One row: the version of these tables."""

    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class RaterRow(Base):
    """number: what exports call the rater, in place of `key`. Of one who withdrew nothing but the number stays."""

    __tablename__ = "raters"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    pseudonym: Mapped[str] = mapped_column(String(80), default="", server_default="")


class ConsentRow(Base):
    """A rater agreed to a text (version) and that their votes are published under a licence."""

    __tablename__ = "consents"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rater_number: Mapped[int] = mapped_column(ForeignKey("raters.number"), index=True)
    version: Mapped[str] = mapped_column(String(50))
    licence: Mapped[str] = mapped_column(String(100))
    given_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class WithdrawalRow(Base):
    """What a rater took with them. votes: entries of the log; marks: pictures of marked regions."""

    __tablename__ = "withdrawals"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rater_number: Mapped[int] = mapped_column(ForeignKey("raters.number"))
    votes: Mapped[int] = mapped_column(Integer)
    marks: Mapped[int] = mapped_column(Integer)
    withdrawn_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class ImageRow(Base):
    """The exact pixels: sha256 of the file's bytes. scene_id, path: where they were first seen. size: bytes, None
    where the file was not at hand."""

    __tablename__ = "images"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    scene_id: Mapped[str] = mapped_column(String(200), index=True)
    role: Mapped[str] = mapped_column(String(20))
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class CandidateRow(Base):
    """One fix of one frame, or its raw render (fixer "render"). id: `candidate_key` of the settings and pixels."""

    __tablename__ = "candidates"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"))
    scene_id: Mapped[str] = mapped_column(String(200))
    trajectory: Mapped[str] = mapped_column(String(200))
    frame_index: Mapped[int] = mapped_column(Integer)
    fixer: Mapped[str] = mapped_column(String(200))
    image_path: Mapped[str] = mapped_column(Text)
    references: Mapped[list[str]] = mapped_column("reference_names", JSON)
    timestep: Mapped[int | None] = mapped_column(Integer)
    seed: Mapped[int] = mapped_column(Integer)
    extra: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class ItemRow(Base):
    """A question: two candidates of one frame, in canonical order (candidate_a < candidate_b).

    kind: "pair", or what sort of gold (ratings/gold.py); expected: the answer of gold, a | b | tie, else None.
    """

    __tablename__ = "items"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), default="pair")
    scene_id: Mapped[str] = mapped_column(String(200), index=True)
    candidate_a: Mapped[str] = mapped_column(ForeignKey("candidates.id"))
    candidate_b: Mapped[str] = mapped_column(ForeignKey("candidates.id"))
    expected: Mapped[str | None] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class CampaignRow(Base):
    """A question is of a campaign, old checkpoint against new: new_is (a | b) is the new one's picture. Of several rows
    of one question the last counts."""

    __tablename__ = "campaigns"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), index=True)
    new_is: Mapped[str] = mapped_column(String(1))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    __table_args__ = (CheckConstraint("new_is IN ('a', 'b')", name="campaign_is_of_a_or_b"),)


class AssignmentRow(Base):
    """A question was given to a rater. id: the token of the vote on it. Times are the server's; how long it is held,
    and what a clock that jumps does to that, is in ratings/leases.py."""

    __tablename__ = "assignments"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    rater_number: Mapped[int] = mapped_column(ForeignKey("raters.number"), index=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    left_is: Mapped[str] = mapped_column(String(1))
    purpose: Mapped[str] = mapped_column(String(10))
    own_upload: Mapped[bool] = mapped_column(Boolean, default=False)
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)
    lease_s: Mapped[float] = mapped_column(Float)

    __table_args__ = (
        CheckConstraint("left_is IN ('a', 'b')", name="assignment_has_a_left_side"),
        CheckConstraint("purpose IN ('rate', 'gold', 'repeat')", name="assignment_has_a_purpose"),
    )


class RatingRow(Base):
    """One entry of the log.

    token: made by the page when it shows the pair; a second row with it is refused, so a double click is one vote.
    supersedes: the entry that this one takes the place of; unique, so each is superseded once at most.
    choice, left_is, seconds, shown_at: of a vote; a retraction has none of them.
    assignment_id, purpose, late, own_upload: of the assignment that the vote answers; late where its lease had run
    out. A vote without an assignment is one to learn which is better.
    """

    __tablename__ = "ratings"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True, default=new_id)
    token: Mapped[str] = mapped_column(String(100), unique=True)
    action: Mapped[str] = mapped_column(String(10))
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    rater_number: Mapped[int] = mapped_column(ForeignKey("raters.number"))
    choice: Mapped[str | None] = mapped_column(String(10))
    left_is: Mapped[str | None] = mapped_column(String(1))
    seconds: Mapped[float | None] = mapped_column(Float)
    reference: Mapped[str | None] = mapped_column(Text)
    shown_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("ratings.id"), unique=True)
    ui_version: Mapped[str] = mapped_column(String(50), default="")
    comment: Mapped[str] = mapped_column(Text, default="", server_default="")
    assignment_id: Mapped[str | None] = mapped_column(ForeignKey("assignments.id"))
    purpose: Mapped[str] = mapped_column(String(10), default=RATE, server_default=RATE)
    late: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    own_upload: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())

    __table_args__ = (
        CheckConstraint(
            "(action = 'vote' AND choice IN ('a', 'b', 'tie', 'both_bad', 'skip') AND left_is IN ('a', 'b')"
            " AND seconds >= 0) OR (action = 'retract' AND choice IS NULL AND supersedes IS NOT NULL)",
            name="rating_is_a_vote_or_a_retraction",
        ),
        CheckConstraint("purpose IN ('rate', 'gold', 'repeat')", name="rating_has_a_purpose"),
        Index("ratings_of_item", "item_id"),
        Index("ratings_of_rater", "rater_number", "number"),
        Index("ratings_of_assignment", "assignment_id"),  # else each assignment that is deleted looks through them all
        # A number is not given again when the last rows were withdrawn: exports and readers go by it.
        {"sqlite_autoincrement": True},
    )


class MarksRow(Base):
    """Where a picture is bad: a PNG of 8-bit grey at the picture's own size, non-zero there. sha256: of its bytes.

    In the database and not in a file: one transaction writes or withdraws it with its vote, one backup holds both,
    and where the database is on another machine it is there too. A few kB each.
    """

    __tablename__ = "marks"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    png: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class JudgementRow(Base):
    """What a vote says of one of its two pictures. side: a | b."""

    __tablename__ = "judgements"
    rating_id: Mapped[str] = mapped_column(ForeignKey("ratings.id"), primary_key=True)
    side: Mapped[str] = mapped_column(String(1), primary_key=True)
    tags: Mapped[list[str]] = mapped_column(JSON)
    artifact_removal: Mapped[int | None] = mapped_column(Integer)
    faithfulness: Mapped[int | None] = mapped_column(Integer)
    marks_sha256: Mapped[str | None] = mapped_column(ForeignKey("marks.sha256"), index=True)

    __table_args__ = (
        CheckConstraint("side IN ('a', 'b')", name="judgement_is_of_a_or_b"),
        CheckConstraint("artifact_removal BETWEEN 1 AND 5", name="artifact_removal_is_1_to_5"),
        CheckConstraint("faithfulness BETWEEN 1 AND 5", name="faithfulness_is_1_to_5"),
    )
