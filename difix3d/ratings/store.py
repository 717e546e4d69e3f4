"""The log of ratings: add a vote, take the last one back, read what counts.

A RatingStore may be used by several threads, and several processes may have the same database open: each vote is
one short transaction that holds the write lock from its start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from difix3d.errors import RatingError
from difix3d.ratings.database import default_url, open_engine, writing
from difix3d.ratings.identity import candidate_key, canonical_rating
from difix3d.ratings.log import (
    BATCH,
    StoredRating,
    append_vote,
    counts_now,
    is_vote,
    retract_last,
    select_votes,
    stored,
)
from difix3d.ratings.pictures import find_picture, keep_picture
from difix3d.ratings.schema import CHOICES, CandidateRow, ItemRow, RaterRow, RatingRow, new_id
from difix3d.ratings.summary import pair_results, side_bias, win_rates
from difix3d.types import Rating

__all__ = ["RatingStore", "StoredRating", "default_url"]

_ATTEMPTS = 5
_MAX_RATER = 200
_Result = TypeVar("_Result")


class RatingStore:
    """url: of SQLAlchemy ("": default_url()). scenes: the folder of scenes; where it is given, the pictures of
    each vote are kept (see ratings/pictures.py). RatingError for a database that cannot be used."""

    def __init__(self, url: str = "", scenes: Path | str | None = None):
        self.engine = open_engine(url or default_url())
        self.scenes = Path(scenes) if scenes else None

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> RatingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def add(self, rating: Rating, token: str, *, ui_version: str = "") -> str:
        """Append a vote and return its id. The same token again returns the first vote's id and adds nothing.

        A vote of a rater on a pair that they have judged supersedes the one that counted. Candidates are stored
        in canonical order, and choice and left_is with them. RatingError for a vote that makes no sense.
        """
        rating = _checked(rating)
        if not 0 < len(token) <= 100:
            raise RatingError(f"token: expected 1 to 100 characters, got {len(token)}")
        sizes = {
            candidate.sha256: keep_picture(self.scenes, candidate.scene_id, candidate.image_path, candidate.sha256)
            for candidate in (rating.candidate_a, rating.candidate_b)
            if self.scenes
        }
        return self._write(lambda session: append_vote(session, rating, token, ui_version, sizes))

    def undo(self, rater: str, *, scene_id: str | None = None, token: str | None = None) -> Rating | None:
        """Take back the rater's last vote that counts (of one scene, where named), and return it; None where
        there is none. The pair is then asked again: undoing a changed vote does not bring the first one back.

        The same token again takes nothing more back and returns the same vote.
        """
        return self._write(lambda session: retract_last(session, rater, scene_id, token or new_id()))

    def _write(self, change: Callable[[Session], _Result]) -> _Result:
        for attempt in range(_ATTEMPTS):
            try:
                with Session(writing(self.engine)) as session, session.begin():
                    return change(session)
            except IntegrityError:
                # PostgreSQL lets two writers insert the same rater or picture; the second sees the first's rows now.
                if attempt == _ATTEMPTS - 1:
                    raise
            except DBAPIError as error:
                raise RatingError(f"The rating could not be saved: {error.orig}. Try again.") from error
        raise AssertionError

    # Reading

    def ratings(self, scene_id: str | None = None, include_superseded: bool = False) -> list[StoredRating]:
        """Votes in the order they were given; those that count, or all."""
        return list(self.stream(scene_id, include_superseded))

    def stream(
        self, scene_id: str | None = None, include_superseded: bool = False, *, up_to: int | None = None
    ) -> Iterator[StoredRating]:
        """As `ratings`, in batches. up_to: the log as it was when this number was its last (see `last_number`)."""
        last = self.last_number() if up_to is None else up_to
        after = 0
        while True:
            with Session(self.engine) as session:
                rows = session.execute(select_votes(scene_id, include_superseded, after, last)).all()
            for row in rows:
                yield stored(*row)
            if len(rows) < BATCH:
                return
            after = rows[-1][0].number

    def last_number(self) -> int:
        """The number of the newest entry; 0 for an empty log."""
        with Session(self.engine) as session:
            return session.scalar(select(func.max(RatingRow.number))) or 0

    def votes_per_item(self, scene_ids: list[str]) -> dict[str, int]:
        """item id -> votes that count, skips apart. Items without votes are left out."""
        query = (
            select(RatingRow.item_id, func.count())
            .join(ItemRow, ItemRow.id == RatingRow.item_id)
            .where(ItemRow.scene_id.in_(scene_ids), RatingRow.choice != "skip", counts_now())
            .group_by(RatingRow.item_id)
        )
        with Session(self.engine) as session:
            return {item: count for item, count in session.execute(query)}  # noqa: C416  a row is no tuple to mypy

    def judged_by(self, rater: str, scene_ids: list[str]) -> set[str]:
        """Items on which the rater has a vote that counts, skips too."""
        query = (
            select(RatingRow.item_id)
            .join(ItemRow, ItemRow.id == RatingRow.item_id)
            .join(RaterRow, RaterRow.number == RatingRow.rater_number)
            .where(RaterRow.key == rater, ItemRow.scene_id.in_(scene_ids), counts_now())
        )
        with Session(self.engine) as session:
            return set(session.scalars(query))

    # Figures

    def counts(self, scene_id: str | None = None) -> dict[str, Any]:
        """ratings (that count), choices {decided, tie, both_bad, skip}, superseded, raters, items, scenes,
        side_bias {left, right, left_share}; of all scenes or of one."""
        counting = counts_now(scene_id)
        with Session(self.engine) as session:
            by_choice = dict(
                session.execute(select(RatingRow.choice, func.count()).where(counting).group_by(RatingRow.choice)).all()
            )
            votes = session.scalar(select(func.count(RatingRow.number)).where(is_vote(scene_id))) or 0
            raters, items, scenes = session.execute(
                select(
                    func.count(RatingRow.rater_number.distinct()),
                    func.count(RatingRow.item_id.distinct()),
                    func.count(ItemRow.scene_id.distinct()),
                )
                .join(ItemRow, ItemRow.id == RatingRow.item_id)
                .where(counting)
            ).one()
            counted = sum(by_choice.values())
            return {
                "ratings": counted,
                "choices": {
                    "decided": by_choice.get("a", 0) + by_choice.get("b", 0),
                    **{choice: by_choice.get(choice, 0) for choice in ("tie", "both_bad", "skip")},
                },
                "superseded": votes - counted,
                "raters": raters,
                "items": items,
                "scenes": scenes,
                "side_bias": side_bias(session, counting),
            }

    def win_rates(self, scene_id: str | None = None) -> dict[str, dict[str, Any]]:
        """fixer -> wins, losses, ties, both_bad, win_rate (a tie is half a win), interval (95 %), against
        {other fixer: the same}. Only pairs of different fixers are counted."""
        with Session(self.engine) as session:
            return win_rates(pair_results(session, counts_now(scene_id)))

    def verify(self, scenes: Path | str) -> list[dict[str, str]]:
        """Every picture that a candidate names and that is no longer there as it was rated:
        {"scene_id", "path", "sha256", "problem": "missing" | "altered"}."""
        query = select(CandidateRow.scene_id, CandidateRow.image_path, CandidateRow.image_sha256).distinct()
        with Session(self.engine) as session:
            rows = session.execute(query.order_by(CandidateRow.scene_id, CandidateRow.image_path)).all()
        problems = []
        for scene_id, path, sha256 in rows:
            _, problem = find_picture(Path(scenes), scene_id, path, sha256)
            if problem:
                problems.append({"scene_id": scene_id, "path": path, "sha256": sha256, "problem": problem})
        return problems


def _checked(rating: Rating) -> Rating:
    a, b = rating.candidate_a, rating.candidate_b
    if rating.choice not in CHOICES:
        raise RatingError(f"choice: expected one of {', '.join(CHOICES)}, got {rating.choice!r}")
    if rating.left_is not in ("a", "b"):
        raise RatingError(f"left_is: expected a or b, got {rating.left_is!r}")
    if not (math.isfinite(rating.seconds) and rating.seconds >= 0):
        raise RatingError(f"seconds: expected a time from 0 up, got {rating.seconds}")
    if not 0 < len(rating.rater) <= _MAX_RATER:
        raise RatingError(f"rater: expected 1 to {_MAX_RATER} characters, got {len(rating.rater)}")
    if (a.scene_id, a.trajectory, a.frame_index) != (b.scene_id, b.trajectory, b.frame_index):
        raise RatingError("A rating compares two candidates of one frame; these are of two frames")
    if candidate_key(a) == candidate_key(b):
        raise RatingError("A rating compares two candidates; these are one and the same")
    return canonical_rating(rating)
