"""The log of ratings: add a vote, take the last one back, read what counts.

A RatingStore may be used by several threads, and several processes may have the same database open: each vote is
one short transaction that holds the write lock from its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from difix3d.atomic import replacing_file
from difix3d.errors import RatingError
from difix3d.ratings import people
from difix3d.ratings.checks import checked, clean_text
from difix3d.ratings.database import default_url, open_engine, writing
from difix3d.ratings.judgements import Marks, read_marks
from difix3d.ratings.log import (
    BATCH,
    StoredRating,
    VoteFacts,
    append_vote,
    counts_now,
    is_vote,
    read_votes,
    retract_last,
    select_votes,
)
from difix3d.ratings.pictures import find_picture, keep_picture, picture_size
from difix3d.ratings.schema import RATE, CandidateRow, ItemRow, MarksRow, RatingRow, new_id
from difix3d.ratings.summary import side_bias, win_rates
from difix3d.types import Candidate, Rating

__all__ = ["RatingStore", "StoredRating", "default_url"]

_RETRIED_S = 10.0
"""How long a vote is tried again when the database went away: a restart of PostgreSQL takes a few seconds."""
_Result = TypeVar("_Result")


class RatingStore:
    """url: of SQLAlchemy ("": default_url()). scenes: the folder of scenes; where it is given, the pictures of
    each vote are kept (see ratings/pictures.py). RatingError for a database that cannot be used."""

    def __init__(self, url: str = "", scenes: Path | str | None = None):
        self.engine = open_engine(url or default_url())
        self.scenes = Path(scenes) if scenes else None
        # SQLite has one writer at a time, and who waits for it sleeps and looks again, for up to 0.1 s each time:
        # threads of one process queue here instead.
        self._turn = threading.Lock() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> RatingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def add(
        self, rating: Rating, token: str, *, ui_version: str = "", late: bool | None = None, asked: bool = False
    ) -> str:
        """Append a vote and return its id. The same token again returns the first vote's id and adds nothing.

        token: of the assignment that is answered (PairToRate.token), which says what the vote is for; or any other
        new string for a vote on which is better, unless it must answer one that was `asked`. late: the lease had run
        out, None to go by the database's times. A vote of a rater on a pair that they have judged supersedes the one
        that counted, unless it answers a repeat.
        Candidates are stored in canonical order, and what was said of each with them. RatingError for a vote that
        makes no sense, and where it could not be saved: it is not, and may be sent again.
        """
        rating = checked(rating)
        if not 0 < len(token) <= 100:
            raise RatingError(f"token: expected 1 to 100 characters, got {len(token)}")
        a, b = rating.candidate_a, rating.candidate_b
        marks_a = self._marks(rating.on_a.marks, a, "the first picture")
        marks_b = self._marks(rating.on_b.marks, b, "the second picture")
        sizes = {each.sha256: self._keep(each) for each in (a, b)}
        facts = VoteFacts(sizes, marks_a, marks_b, late, asked)
        return self.write(lambda session: append_vote(session, rating, token, ui_version[:50], facts))

    def undo(self, rater: str, *, scene_id: str | None = None, token: str | None = None) -> Rating | None:
        """Take back the rater's last vote that stands (of one scene, where named), and return it; None where
        there is none. The pair is then asked again: undoing a changed vote does not bring the first one back.

        The same token again takes nothing more back and returns the same vote.
        """
        undone = self.undo_vote(rater, scene_id=scene_id, token=token or new_id())
        return undone.rating if undone else None

    def undo_vote(self, rater: str, *, scene_id: str | None, token: str) -> StoredRating | None:
        """As `undo`, with what is known of the vote."""
        return self.write(lambda session: retract_last(session, rater, scene_id, token))

    def consent(self, rater: str, version: str, licence: str) -> None:
        """The rater agreed to that version of the text, and to publishing votes under the licence."""
        self.write(lambda session: people.give_consent(session, rater, version, licence))

    def name_rater(self, rater: str, pseudonym: str) -> None:
        """What they want to be called; "" takes it back. Cut at people.MAX_PSEUDONYM characters."""
        text = " ".join(clean_text(pseudonym).split())[: people.MAX_PSEUDONYM]
        self.write(lambda session: people.set_pseudonym(session, rater, text))

    def person(self, rater: str) -> people.Person | None:
        """What is known of a rater; None for one who never voted nor agreed to anything, or withdrew."""
        with Session(self.engine) as session:
            return people.find_person(session, rater)

    def withdraw(self, rater: str) -> people.Withdrawn:
        """Delete everything a rater said; see people.withdraw for what stays."""
        return self.write(lambda session: people.withdraw(session, rater))

    def write(self, change: Callable[[Session], _Result], *, lasting: bool = True) -> _Result:
        """Run `change` in a transaction that holds the write lock from its start, again where the database was away
        or two writers met. It must do the same however often it is run. lasting: see database.writing. RatingError
        where it could not be saved."""
        deadline = time.monotonic() + _RETRIED_S
        pause_s = 0.05
        while True:
            try:
                with self._turn, Session(writing(self.engine, lasting)) as session, session.begin():
                    return change(session)
            except DBAPIError as error:
                if not _may_pass(error) or time.monotonic() + pause_s > deadline:
                    reason = " ".join(str(error.orig).split())
                    raise RatingError(f"The rating could not be saved: {reason}. Try again.") from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    def _marks(self, png: bytes | None, candidate: Candidate, name: str) -> Marks | None:
        if not png:
            return None
        return read_marks(png, name, picture_size(self.scenes, candidate) if self.scenes else None)

    def _keep(self, candidate: Candidate) -> int | None:
        if not self.scenes:
            return None
        return keep_picture(self.scenes, candidate.scene_id, candidate.image_path, candidate.sha256)

    # Reading

    def ratings(
        self,
        scene_id: str | None = None,
        include_superseded: bool = False,
        *,
        purposes: Sequence[str] = (RATE,),
        marks: bool = True,
    ) -> list[StoredRating]:
        """Votes in the order they were given; those that stand, or all. purposes: RATE, GOLD, REPEAT. marks: with the
        pictures of marked regions."""
        return list(self.stream(scene_id, include_superseded, purposes=purposes, marks=marks))

    def stream(
        self,
        scene_id: str | None = None,
        include_superseded: bool = False,
        *,
        up_to: int | None = None,
        purposes: Sequence[str] = (RATE,),
        marks: bool = True,
    ) -> Iterator[StoredRating]:
        """As `ratings`, in batches. up_to: the log as it was when this number was its last (see `last_number`)."""
        last = self.last_number() if up_to is None else up_to
        after = 0
        while True:
            with Session(self.engine) as session:
                query = select_votes(scene_id, include_superseded, after, last)
                votes = read_votes(session, query.where(RatingRow.purpose.in_(purposes)), marks)
            yield from votes
            if len(votes) < BATCH:
                return
            after = votes[-1].number

    def last_number(self) -> int:
        """The number of the newest entry; 0 for an empty log."""
        with Session(self.engine) as session:
            return session.scalar(select(func.max(RatingRow.number))) or 0

    # Figures

    def counts(self, scene_id: str | None = None) -> dict[str, Any]:
        """ratings (that count), choices {decided, tie, both_bad, skip}, superseded, raters, items, scenes,
        side_bias {left, right, left_share}; of all scenes or of one."""
        counting = counts_now(scene_id)
        with Session(self.engine) as session:
            by_choice = dict(
                session.execute(select(RatingRow.choice, func.count()).where(counting).group_by(RatingRow.choice)).all()
            )
            given = select(func.count(RatingRow.number)).where(is_vote(scene_id), RatingRow.purpose == RATE)
            votes = session.scalar(given) or 0
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
        """See summary.win_rates; of all scenes or of one. Of the uploader's votes too, unlike `results`: on one's own
        machine there are often no others."""
        return win_rates([vote for vote in self.ratings(scene_id, marks=False) if vote.rating.choice != "skip"])

    def verify(self, scenes: Path | str) -> list[dict[str, str]]:
        """Hash every picture that a candidate names and every picture of marks again. Those that are not as they were:
        {"scene_id", "path", "sha256", "problem": "missing" | "altered"}; of marks the path is "marks"."""
        query = select(CandidateRow.scene_id, CandidateRow.image_path, CandidateRow.image_sha256).distinct()
        with Session(self.engine) as session:
            rows = session.execute(query.order_by(CandidateRow.scene_id, CandidateRow.image_path)).all()
            marks = session.scalars(select(MarksRow.sha256)).all()
        problems = []
        for scene_id, path, sha256 in rows:
            _, problem = find_picture(Path(scenes), scene_id, path, sha256, again=True)
            if problem:
                problems.append({"scene_id": scene_id, "path": path, "sha256": sha256, "problem": problem})
        for sha256 in marks:
            with Session(self.engine) as session:
                png = session.scalar(select(MarksRow.png).where(MarksRow.sha256 == sha256)) or b""
            if hashlib.sha256(png).hexdigest() != sha256:
                problems.append({"scene_id": "", "path": "marks", "sha256": sha256, "problem": "altered"})
        return problems

    def pictures(self) -> int:
        """How many files and marks `verify` looks at."""
        named = select(CandidateRow.scene_id, CandidateRow.image_path, CandidateRow.image_sha256).distinct().subquery()
        with Session(self.engine) as session:
            marks = session.scalar(select(func.count()).select_from(MarksRow)) or 0
            return (session.scalar(select(func.count()).select_from(named)) or 0) + marks

    def backup(self, path: Path) -> None:
        """A copy of the whole database as one file, while others write (VACUUM INTO): whole or not there.

        RatingError where the file is there already, and for a database that is no SQLite file.
        """
        if self.engine.dialect.name != "sqlite":
            raise RatingError("Only a SQLite file is copied here. For PostgreSQL: pg_dump --format=custom URL > FILE")
        if path.exists():
            raise RatingError(f"{path} is there already, and a backup is never written over. Name a new file.")
        connection = self.engine.raw_connection()
        try:
            with replacing_file(path) as temporary:
                connection.cursor().execute("VACUUM INTO ?", (str(temporary),))
        except (sqlite3.Error, OSError) as error:
            raise RatingError(f"{path}: the copy could not be written: {error}") from error
        finally:
            connection.close()


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same transaction may go through when it is tried again.

    PostgreSQL lets two writers insert the same rater or picture (the second sees the first's rows then), and goes away
    when it is restarted. Whether a commit came through before it went is not known: the token makes that harmless.
    SQLite has waited for the lock already.
    """
    if isinstance(error, IntegrityError) or error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError) or not type(error.orig).__module__.startswith("psycopg"):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # 08 connection, 40 deadlock or serialization, 57P server starts or stops, 53300 too many connections
    return state is None or state[:2] in ("08", "40") or state[:3] == "57P" or state == "53300"
