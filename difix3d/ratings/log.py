"""What one transaction of the rating store does: append a vote, append a retraction, select votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from difix3d.errors import RatingError
from difix3d.ratings.identity import candidate_key, item_key
from difix3d.ratings.judgements import Judgements, Marks, append_judgement, read_judgements
from difix3d.ratings.leases import lease_is_held
from difix3d.ratings.schema import (
    GOLD,
    RATE,
    REPEAT,
    RETRACT,
    VOTE,
    AssignmentRow,
    CandidateRow,
    ImageRow,
    ItemRow,
    RaterRow,
    RatingRow,
    new_id,
    now,
)
from difix3d.types import Candidate, Judgement, Rating

RATINGS, RATERS, ITEMS, CANDIDATES, IMAGES, ASSIGNMENTS = (
    cast(Table, row.__table__) for row in (RatingRow, RaterRow, ItemRow, CandidateRow, ImageRow, AssignmentRow)
)
BATCH = 500
"""Votes that `select_votes` gives at once."""


@dataclass(frozen=True)
class StoredRating:
    """A vote as it is in the log. number: its place; rater_number: the rater's stand-in for exports.

    superseded_by: id of the entry that took its place, "" while it counts; superseded_as: "vote" (changed),
    "retract" (undone) or "". purpose: RATE | GOLD | REPEAT; expected: the answer of gold, a | b | tie, else None;
    late: given after its lease ran out; own_upload: the rater made the scene. has_marks: which sides (of "ab") have
    marks, also where `rating` was read without them.
    """

    number: int
    id: str
    item_id: str
    rating: Rating
    rater_number: int
    shown_at: datetime
    created_at: datetime
    ui_version: str
    superseded_by: str = ""
    superseded_as: str = ""
    purpose: str = RATE
    expected: str | None = None
    late: bool = False
    own_upload: bool = False
    has_marks: str = ""


@dataclass(frozen=True)
class VoteFacts:
    """What is found out of a vote before its transaction begins. sizes: sha256 of a picture -> bytes; marks: checked;
    late: as the process that gave out the question knows by its own clock, None to go by the times in the database;
    asked: it answers a question that was given out, and there is no vote without one."""

    sizes: Mapping[str, int | None] = field(default_factory=dict)
    marks_a: Marks | None = None
    marks_b: Marks | None = None
    late: bool | None = None
    asked: bool = False


def counts_now(scene_id: str | None = None) -> ColumnElement[bool]:
    """The row is a vote on which is better (no gold, no repeat), and stands; of one scene, where named."""
    return and_(stands(scene_id), RatingRow.purpose == RATE)


def stands(scene_id: str | None = None) -> ColumnElement[bool]:
    """The row is a vote for any purpose, and no other row supersedes it; of one scene, where named."""
    later = aliased(RatingRow)
    return and_(is_vote(scene_id), ~select(later.number).where(later.supersedes == RatingRow.id).exists())


def is_vote(scene_id: str | None = None) -> ColumnElement[bool]:
    """The row is a vote, superseded or not; of one scene, where named."""
    if scene_id is None:
        return RatingRow.action == VOTE
    of_scene = select(ItemRow.id).where(ItemRow.scene_id == scene_id)
    return and_(RatingRow.action == VOTE, RatingRow.item_id.in_(of_scene))


def append_vote(session: Session, rating: Rating, token: str, ui_version: str, facts: VoteFacts) -> str:
    """token: that of an assignment, or, unless the vote must answer one, any other string that is new to the log.

    Plain statements and no objects: this is what a server with many raters does most.
    """
    connection = session.connection()
    item_id = item_key(rating.candidate_a, rating.candidate_b)
    known = connection.execute(
        select(RATINGS.c.id, RATINGS.c.item_id, RATINGS.c.action).where(RATINGS.c.token == token)
    ).one_or_none()
    if known is not None:
        if known.item_id != item_id or known.action != VOTE:
            raise RatingError("This token belongs to another vote. Reload the page to go on.")
        return known.id
    rater_number = rater_number_of(session, rating.rater)
    assignment = connection.execute(select(ASSIGNMENTS).where(ASSIGNMENTS.c.id == token)).one_or_none()
    if facts.asked and not assignment:
        raise RatingError(
            "This pair was not given to you by this server, or its note of it is gone, as when you withdraw. The vote "
            "was not counted. Reload the page to go on."
        )
    if assignment and (assignment.item_id, assignment.rater_number) != (item_id, rater_number):
        raise RatingError("This question was given to somebody else. Reload the page to go on.")
    if assignment:
        purpose = assignment.purpose
    else:
        expected = ensure_item(session, NewItem(rating.candidate_a, rating.candidate_b), facts.sizes)
        purpose = RATE if expected is None else GOLD
    former = None
    if purpose != REPEAT:  # a repeat is asked to be held against the first answer, not to take its place
        later = RATINGS.alias()
        former = connection.scalar(
            select(RATINGS.c.id).where(
                RATINGS.c.rater_number == rater_number,
                RATINGS.c.item_id == item_id,
                RATINGS.c.action == VOTE,
                RATINGS.c.purpose == purpose,
                ~select(later.c.number).where(later.c.supersedes == RATINGS.c.id).exists(),
            )
        )
    created_at, id_ = now(), new_id()
    connection.execute(
        insert(RATINGS).values(
            id=id_,
            token=token,
            action=VOTE,
            item_id=item_id,
            rater_number=rater_number,
            choice=rating.choice,
            left_is=rating.left_is,
            seconds=rating.seconds,
            reference=rating.reference,
            shown_at=created_at - timedelta(seconds=min(rating.seconds, 1e8)),
            created_at=created_at,
            supersedes=former,
            ui_version=ui_version,
            comment=rating.comment,
            assignment_id=assignment.id if assignment else None,
            purpose=purpose,
            late=_is_late(assignment, created_at) if facts.late is None else facts.late,
            own_upload=assignment.own_upload if assignment else False,
        )
    )
    for side, judgement, marks in (("a", rating.on_a, facts.marks_a), ("b", rating.on_b, facts.marks_b)):
        append_judgement(session, id_, side, judgement, marks)
    return id_


def _is_late(assignment: Any, at: datetime) -> bool:
    return assignment is not None and not lease_is_held(assignment.issued_at, assignment.lease_s, at)


def retract_last(session: Session, rater_key: str, scene_id: str | None, token: str) -> StoredRating | None:
    if known := session.scalar(select(RatingRow).where(RatingRow.token == token)):
        undone_id = known.supersedes
    else:
        rater = session.scalar(select(RaterRow).where(RaterRow.key == rater_key).with_for_update())
        if rater is None:
            return None
        last = select(RatingRow).where(RatingRow.rater_number == rater.number, stands())
        if scene_id is not None:
            last = last.join(ItemRow, ItemRow.id == RatingRow.item_id).where(ItemRow.scene_id == scene_id)
        undone = session.scalar(last.order_by(RatingRow.number.desc()).limit(1))
        if undone is None:
            return None
        undone_id = undone.id
        session.add(
            RatingRow(
                id=new_id(),
                token=token,
                action=RETRACT,
                item_id=undone.item_id,
                rater_number=rater.number,
                supersedes=undone_id,
                purpose=undone.purpose,
            )
        )
        session.flush()
    query = select_votes(None, True, 0, None).where(RatingRow.id == undone_id)
    return read_votes(session, query)[0]


def rater_number_of(session: Session, key: str) -> int:
    """The rater's number, given now where they are new. Their row is locked where the database can: a rater's votes are
    appended one after the other."""
    connection = session.connection()
    number = connection.scalar(select(RATERS.c.number).where(RATERS.c.key == key).with_for_update())
    if number is None:
        number = connection.execute(insert(RATERS).values(key=key)).inserted_primary_key[0]  # type: ignore[index]
    return number


@dataclass(frozen=True)
class NewItem:
    """A question to write. a, b: in canonical order; expected: the answer that it is known to have, None for most."""

    a: Candidate
    b: Candidate
    kind: str = "pair"
    expected: str | None = None


def ensure_item(session: Session, item: NewItem, sizes: Mapping[str, int | None]) -> str | None:
    """`ensure_items` of one. Returns the answer that the database knows it to have."""
    id_ = item_key(item.a, item.b)
    known = session.connection().execute(select(ITEMS.c.expected).where(ITEMS.c.id == id_)).one_or_none()
    if known is not None:
        return known.expected
    ensure_items(session, [item], sizes)
    return item.expected


def ensure_items(session: Session, items: Sequence[NewItem], sizes: Mapping[str, int | None]) -> None:
    """Write these questions with their candidates and pictures, where they are new. sizes: bytes by sha256.

    Pictures first, then candidates, then questions, each in the order of their keys. A row that is not committed yet
    makes whoever inserts the same wait; were it not the same order for all, two could wait for each other.
    """
    connection = session.connection()
    candidates = {candidate_key(each): each for item in items for each in (item.a, item.b)}
    candidates = {key: candidates[key] for key in sorted(candidates) if not _is_there(connection, CANDIDATES.c.id, key)}
    pictures = {each.sha256: each for each in candidates.values()}
    for sha256 in sorted(pictures):
        _ensure_picture(connection, pictures[sha256], sizes.get(sha256))
    for key, candidate in candidates.items():
        _ensure_candidate(connection, candidate, key)
    by_id = {item_key(item.a, item.b): item for item in items}
    for id_ in sorted(by_id):
        item = by_id[id_]
        keys = candidate_key(item.a), candidate_key(item.b)
        values = {"kind": item.kind, "scene_id": item.a.scene_id, "expected": item.expected}
        _insert_unless_there(connection, ITEMS, id=id_, candidate_a=keys[0], candidate_b=keys[1], **values)


def _is_there(connection: Connection, column: Column, key: str) -> bool:
    return connection.scalar(select(column).where(column == key)) is not None


def _insert_unless_there(connection: Connection, table: Table, **values: Any) -> None:
    """A row, where another writer has not just written the same: its key says all that it holds."""
    dialect = {"postgresql": postgresql, "sqlite": sqlite}[connection.dialect.name]
    connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())  # type: ignore[attr-defined]


def _ensure_picture(connection: Connection, candidate: Candidate, size: int | None) -> None:
    if _is_there(connection, IMAGES.c.sha256, candidate.sha256):
        return
    _insert_unless_there(
        connection,
        IMAGES,
        sha256=candidate.sha256,
        scene_id=candidate.scene_id,
        role=candidate.fixer if candidate.fixer in ("render", "photo") else "fixed",
        path=candidate.image_path,
        size=size,
    )


def _ensure_candidate(connection: Connection, candidate: Candidate, key: str) -> None:
    _insert_unless_there(
        connection,
        CANDIDATES,
        id=key,
        image_sha256=candidate.sha256,
        scene_id=candidate.scene_id,
        trajectory=candidate.trajectory,
        frame_index=candidate.frame_index,
        fixer=candidate.fixer,
        image_path=candidate.image_path,
        reference_names=list(candidate.references),
        timestep=candidate.timestep,
        seed=candidate.seed,
        extra=candidate.extra,
    )


def select_votes(scene_id: str | None, include_superseded: bool, after: int, up_to: int | None) -> Any:
    later, a, b = aliased(RatingRow), aliased(CandidateRow), aliased(CandidateRow)
    superseded = later.supersedes == RatingRow.id
    if up_to is not None:
        superseded = and_(superseded, later.number <= up_to)
    query = (
        select(RatingRow, RaterRow, a, b, later.id, later.action, ItemRow.expected)
        .join(RaterRow, RaterRow.number == RatingRow.rater_number)
        .join(ItemRow, ItemRow.id == RatingRow.item_id)
        .join(a, a.id == ItemRow.candidate_a)
        .join(b, b.id == ItemRow.candidate_b)
        .outerjoin(later, superseded)
        .where(RatingRow.action == VOTE, RatingRow.number > after)
        .order_by(RatingRow.number)
        .limit(BATCH)
    )
    if up_to is not None:
        query = query.where(RatingRow.number <= up_to)
    if scene_id is not None:
        query = query.where(ItemRow.scene_id == scene_id)
    if not include_superseded:
        query = query.where(later.id.is_(None))
    return query


def read_votes(session: Session, query: Any, marks: bool = True) -> list[StoredRating]:
    """What a query of `select_votes` finds. marks: with the pictures of marked regions."""
    rows = session.execute(query).all()
    judgements = read_judgements(session, [row[0].id for row in rows], marks)
    return [_stored(judgements, *row) for row in rows]


def _stored(
    judgements: Judgements,
    row: RatingRow,
    rater: RaterRow,
    a: CandidateRow,
    b: CandidateRow,
    later_id: str | None,
    later_action: str | None,
    expected: str | None,
) -> StoredRating:
    (on_a, marks_a), (on_b, marks_b) = (judgements.get((row.id, side), (Judgement(), False)) for side in "ab")
    rating = Rating(
        candidate_a=candidate_of(a),
        candidate_b=candidate_of(b),
        choice=row.choice or "",
        left_is=row.left_is or "",
        rater=rater.key,
        seconds=row.seconds or 0.0,
        reference=row.reference,
        on_a=on_a,
        on_b=on_b,
        comment=row.comment,
    )
    return StoredRating(
        number=row.number,
        id=row.id,
        item_id=row.item_id,
        rating=rating,
        rater_number=rater.number,
        shown_at=row.shown_at or row.created_at,
        created_at=row.created_at,
        ui_version=row.ui_version,
        superseded_by=later_id or "",
        superseded_as=later_action or "",
        purpose=row.purpose,
        expected=expected,
        late=row.late,
        own_upload=row.own_upload,
        has_marks="a" * marks_a + "b" * marks_b,
    )


def candidate_of(row: CandidateRow) -> Candidate:
    return Candidate(
        scene_id=row.scene_id,
        trajectory=row.trajectory,
        frame_index=row.frame_index,
        fixer=row.fixer,
        image_path=row.image_path,
        sha256=row.image_sha256,
        references=tuple(row.references),
        timestep=row.timestep,
        seed=row.seed,
        extra=row.extra,
    )
