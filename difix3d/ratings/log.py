"""What one transaction of the rating store does: append a vote, append a retraction, select votes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, aliased

from difix3d.errors import RatingError
from difix3d.ratings.identity import candidate_key, item_key
from difix3d.ratings.schema import RETRACT, VOTE, CandidateRow, ImageRow, ItemRow, RaterRow, RatingRow, new_id, now
from difix3d.types import Candidate, Rating

BATCH = 500
"""Votes that `select_votes` gives at once."""


@dataclass(frozen=True)
class StoredRating:
    """A vote as it is in the log. number: its place; rater_number: the rater's stand-in for exports.

    superseded_by: id of the entry that took its place, "" while it counts; superseded_as: "vote" (changed),
    "retract" (undone) or "".
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


def counts_now(scene_id: str | None = None) -> ColumnElement[bool]:
    """The row is a vote, and no other row supersedes it; of one scene, where named."""
    later = aliased(RatingRow)
    not_superseded = ~select(later.number).where(later.supersedes == RatingRow.id).exists()
    return and_(is_vote(scene_id), not_superseded)


def is_vote(scene_id: str | None = None) -> ColumnElement[bool]:
    """The row is a vote, superseded or not; of one scene, where named."""
    if scene_id is None:
        return RatingRow.action == VOTE
    of_scene = select(ItemRow.id).where(ItemRow.scene_id == scene_id)
    return and_(RatingRow.action == VOTE, RatingRow.item_id.in_(of_scene))


def append_vote(session: Session, rating: Rating, token: str, ui_version: str, sizes: dict[str, int | None]) -> str:
    item_id = item_key(rating.candidate_a, rating.candidate_b)
    if known := session.scalar(select(RatingRow).where(RatingRow.token == token)):
        if known.item_id != item_id or known.action != VOTE:
            raise RatingError("This token belongs to another vote. Reload the page to go on.")
        return known.id
    rater = _rater(session, rating.rater)
    for candidate in (rating.candidate_a, rating.candidate_b):
        _ensure_candidate(session, candidate, sizes.get(candidate.sha256))
    if session.get(ItemRow, item_id) is None:
        keys = [candidate_key(candidate) for candidate in (rating.candidate_a, rating.candidate_b)]
        scene_id = rating.candidate_a.scene_id
        session.add(ItemRow(id=item_id, scene_id=scene_id, candidate_a=keys[0], candidate_b=keys[1]))
        session.flush()
    former = session.scalar(
        select(RatingRow.id).where(RatingRow.rater_number == rater.number, RatingRow.item_id == item_id, counts_now())
    )
    created_at = now()
    row = RatingRow(
        id=new_id(),
        token=token,
        action=VOTE,
        item_id=item_id,
        rater_number=rater.number,
        choice=rating.choice,
        left_is=rating.left_is,
        seconds=rating.seconds,
        reference=rating.reference,
        shown_at=created_at - timedelta(seconds=min(rating.seconds, 1e8)),
        created_at=created_at,
        supersedes=former,
        ui_version=ui_version,
    )
    session.add(row)
    session.flush()
    return row.id


def retract_last(session: Session, rater_key: str, scene_id: str | None, token: str) -> Rating | None:
    if known := session.scalar(select(RatingRow).where(RatingRow.token == token)):
        undone_id = known.supersedes
    else:
        rater = session.scalar(select(RaterRow).where(RaterRow.key == rater_key).with_for_update())
        if rater is None:
            return None
        last = select(RatingRow).where(RatingRow.rater_number == rater.number, counts_now())
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
            )
        )
        session.flush()
    query = select_votes(None, True, 0, None).where(RatingRow.id == undone_id)
    return stored(*session.execute(query).one()).rating


def _rater(session: Session, key: str) -> RaterRow:
    """The rater's row, locked where the database can: a rater's votes are appended one after the other."""
    rater = session.scalar(select(RaterRow).where(RaterRow.key == key).with_for_update())
    if rater is None:
        rater = RaterRow(key=key)
        session.add(rater)
        session.flush()
    return rater


def _ensure_candidate(session: Session, candidate: Candidate, size: int | None) -> None:
    if session.get(ImageRow, candidate.sha256) is None:
        role = "render" if candidate.fixer == "render" else "fixed"
        session.add(
            ImageRow(
                sha256=candidate.sha256,
                scene_id=candidate.scene_id,
                role=role,
                path=candidate.image_path,
                size=size,
            )
        )
        session.flush()
    key = candidate_key(candidate)
    if session.get(CandidateRow, key) is None:
        session.add(
            CandidateRow(
                id=key,
                image_sha256=candidate.sha256,
                scene_id=candidate.scene_id,
                trajectory=candidate.trajectory,
                frame_index=candidate.frame_index,
                fixer=candidate.fixer,
                image_path=candidate.image_path,
                references=list(candidate.references),
                timestep=candidate.timestep,
                seed=candidate.seed,
                extra=candidate.extra,
            )
        )
        session.flush()


def select_votes(scene_id: str | None, include_superseded: bool, after: int, up_to: int | None) -> Any:
    later, a, b = aliased(RatingRow), aliased(CandidateRow), aliased(CandidateRow)
    superseded = later.supersedes == RatingRow.id
    if up_to is not None:
        superseded = and_(superseded, later.number <= up_to)
    query = (
        select(RatingRow, RaterRow, a, b, later.id, later.action)
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


def stored(
    row: RatingRow, rater: RaterRow, a: CandidateRow, b: CandidateRow, later_id: str | None, later_action: str | None
) -> StoredRating:
    rating = Rating(
        candidate_a=_candidate(a),
        candidate_b=_candidate(b),
        choice=row.choice or "",
        left_is=row.left_is or "",
        rater=rater.key,
        seconds=row.seconds or 0.0,
        reference=row.reference,
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
    )


def _candidate(row: CandidateRow) -> Candidate:
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
