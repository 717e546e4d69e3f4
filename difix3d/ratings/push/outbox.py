"""What waits to go to a dataset repository, as files: nothing is lost while the Hub is away, or the program ends.

FOLDER/files/            as it will lie in the repository, under names that are given once
    votes/NUMBER-LOG-ID.jsonl   entries of the log up to NUMBER; LOG: another for each database, and for a backup of it
                             that was restored
    images/SHA256.png        the pictures that they are about; marks/SHA256.png
    exports/NAME/            whole exports
    README.md
FOLDER/state.json        how far the log is queued, and which exports were

A file is removed when the Hub has confirmed it. The names of waiting votes tell how far they go, so that a program that
ends between writing them and writing the state queues nothing twice.

A backup that was restored gives numbers anew that the repository has already, and holds votes of raters who withdrew
since it was made. Its log goes out from the beginning, as one of another name, without these votes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from difix3d.atomic import replacing_file, replacing_folder, write_json
from difix3d.errors import RatingError
from difix3d.ratings.export import MARK
from difix3d.ratings.pictures import find_picture
from difix3d.ratings.push.card import repository_card
from difix3d.ratings.push.entries import (
    Entry,
    Withdrawal,
    database_id,
    entries,
    id_of,
    last_given,
    newest_settled,
    withdrawals,
)
from difix3d.ratings.schema import new_id
from difix3d.ratings.store import RatingStore

log = logging.getLogger(__name__)

README = "README.md"


@dataclass
class _State:
    """entry, withdrawal: numbers up to which the database's log is queued; last: number and id of the last entry that
    was; restored: how often a backup of the database was; withdrawn: number of a rater -> when they withdrew; images:
    sha256 of those queued; exports: what is told of each, the newest last; queued: folder of an export -> the sha256 of
    its mark."""

    database: str = ""
    restored: int = 0
    entry: int = 0
    last: tuple[int, str] = (0, "")
    withdrawal: int = 0
    withdrawn: dict[str, str] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    exports: list[dict[str, Any]] = field(default_factory=list)
    queued: dict[str, str] = field(default_factory=dict)

    @property
    def log_name(self) -> str:
        """As file names have it."""
        identity = f"{self.database} restored {self.restored}" if self.restored else self.database
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def took_back(self, line: dict[str, Any]) -> bool:
        """Whether the rater of a line withdrew after it. Later ones are of another rater, with the same number: a
        backup that was restored gives it again."""
        withdrawn_at = self.withdrawn.get(str(line["user_id"]))
        return withdrawn_at is not None and _time(line["created_at"]) <= _time(withdrawn_at)


class Outbox:
    """Of one repository. Who calls `collect`, `queue_export` or `sent` holds the scheduler's lock; two processes do
    not share an outbox (transfer.py sees to it)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._state_path = folder / "state.json"

    def collect(self, store: RatingStore, scenes: Path) -> int:
        """Queue what was said since the last time; returns how many entries. Votes of raters who withdrew are taken
        out of what waits."""
        state = self._state_for(store)
        gone = withdrawals(store, state.withdrawal)
        if gone:
            self._forget(state, gone)
        # Where the newest entries were withdrawn the log ends before what was queued.
        up_to = max(newest_settled(store), state.entry)
        found = [entry for entry in entries(store, state.entry, up_to) if not state.took_back(entry.line)]
        if found or gone:
            for entry in found:
                self._add_pictures(entry, scenes, state)
            lines = [*(each.line for each in gone), *(each.line for each in found)]
            name = f"{up_to:012d}-{state.log_name}-{new_id()}.jsonl"
            with replacing_file(self.files / "votes" / name) as temporary:
                temporary.write_text("".join(json.dumps(line, default=str) + "\n" for line in lines))
            state.entry = up_to
            state.last = (found[-1].number, found[-1].line["id"]) if found else state.last
            state.withdrawal = gone[-1].number if gone else state.withdrawal
            self._describe(state)
            self._save(state)
        return len(found)

    def queue_export(self, store: RatingStore, export: Path) -> bool:
        """Queue the export in a folder, unless it was queued as it is. RatingError where it is none, and where it holds
        votes of raters of this store who withdrew."""
        mark = _read(export, MARK)
        state, sha256 = self._state_for(store), hashlib.sha256(mark).hexdigest()
        if state.queued.get(str(export)) == sha256:
            return False
        # By whose votes are in there and not by its time: who withdraws while it is written may be in a later one.
        if gone := {line["user_id"] for line in _lines_of(export) if state.took_back(line)}:
            raise RatingError(
                f"{export} holds votes of raters who withdrew since ({', '.join(map(str, sorted(gone)))}), and is not "
                f"pushed. Export again: difix3d export --out {export}"
            )
        told = json.loads(mark)
        name = f"{told['created'][:19].replace(':', '')}-{sha256[:8]}"
        with replacing_folder(self.files / "exports" / name) as folder:
            for path in sorted(export.rglob("*")):
                if path.is_file():
                    _link_or_copy(path, folder / path.relative_to(export))
            if (export / MARK).read_bytes() != mark:
                raise RatingError(f"{export} was written anew just now; it is queued the next time")
        splits = sorted(path.stem.removeprefix("preferences-") for path in export.glob("preferences-*.parquet"))
        splits = splits if told["figures"].get("preferences") else []
        state.exports.append({"name": name, "created": told["created"], "splits": splits[::-1]})
        state.queued[str(export)] = sha256
        self._describe(state)
        self._save(state)
        return True

    def waiting(self) -> list[Path]:
        """Files in the order in which they are sent: a line never comes before its pictures, nor a card before what it
        tells of."""
        found = (path for path in sorted(self.files.rglob("*")) if path.is_file())
        named = [path for path in found if not any(part.startswith(".") for part in self.name(path).split("/"))]
        return sorted(named, key=lambda path: _ORDER.get(self.name(path).split("/")[0], 0))

    def votes_waiting(self) -> int:
        """Lines of the log that wait."""
        return sum(len(path.read_text().splitlines()) for path in self.files.glob("votes/*.jsonl"))

    def name(self, path: Path) -> str:
        """What a waiting file is called in the repository."""
        return path.relative_to(self.files).as_posix()

    def sent(self, files: Iterable[tuple[Path, int]]) -> None:
        """The Hub has these (file, its time of change in ns when it was read): they wait no longer. A card that was
        written anew meanwhile does."""
        for path, modified_ns in files:
            if path.is_file() and path.stat().st_mtime_ns == modified_ns:
                path.unlink()
        for folder in sorted(self.files.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _state(self) -> _State:
        state = _State()
        if self._state_path.is_file():
            state = _State(**json.loads(self._state_path.read_text()))
            state.images, (number, entry_id) = set(state.images), state.last
            state.last = number, entry_id
        return state

    def _state_for(self, store: RatingStore) -> _State:
        """The state as far as it is about what this database has said."""
        state, identity = self._state(), database_id(store)
        if state.database != identity:
            state.database, state.restored, state.withdrawn = identity, 0, {}
            state.entry, state.last, state.withdrawal = 0, (0, ""), 0
        waiting = self.files.glob(f"votes/*-{state.log_name}-*.jsonl")
        state.entry = max([state.entry, *(int(path.name.split("-")[0]) for path in waiting)])
        if _went_back(store, state):
            state.restored += 1
            state.entry, state.last, state.withdrawal = 0, (0, ""), 0
            log.warning(
                "The ratings are those of a backup: entries that were queued for the Hub are not among them. They go "
                "there from the beginning, under another name, without the votes of raters who withdrew since "
                "(%d withdrew so far).",
                len(state.withdrawn),
            )
            self._save(state)
        state.withdrawn |= {str(each.user_id): each.line["created_at"] for each in withdrawals(store, 0)}
        return state

    def _save(self, state: _State) -> None:
        write_json(self._state_path, {**asdict(state), "images": sorted(state.images)})

    def _describe(self, state: _State) -> None:
        with replacing_file(self.files / README) as temporary:
            temporary.write_text(repository_card(state.exports))

    def _add_pictures(self, entry: Entry, scenes: Path, state: _State) -> None:
        """A picture that is gone is left out: its sha256 in the line says what was seen."""
        for name, png in entry.marks:
            target = self.files / name
            if not target.exists():
                with replacing_file(target) as temporary:
                    temporary.write_bytes(png)
        for candidate in entry.candidates:
            if candidate.sha256 in state.images:
                continue
            path, _ = find_picture(scenes, candidate.scene_id, candidate.image_path, candidate.sha256)
            if path is not None:
                suffix = Path(candidate.image_path).suffix
                _link_or_copy(path, self.files / "images" / f"{candidate.sha256}{suffix}")
                state.images.add(candidate.sha256)

    def _forget(self, state: _State, gone: list[Withdrawal]) -> None:
        """Take the lines and marks of these raters out of what waits; exports with their votes do not go out."""
        numbers = {each.user_id for each in gone}
        kept_marks: set[str] = set()
        lost_marks: set[str] = set()
        for path in self.files.glob("votes/*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            kept = [line for line in lines if line["user_id"] not in numbers or line["action"] == "withdrawal"]
            for line in lines:
                names = {line[side].get("marks") for side in ("on_a", "on_b") if side in line} - {None}
                (kept_marks if line in kept else lost_marks).update(names)
            if len(kept) < len(lines):
                with replacing_file(path) as temporary:
                    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        for name in lost_marks - kept_marks:
            (self.files / name).unlink(missing_ok=True)
        newest = max(str(each.line["created_at"]) for each in gone)
        for export in list(state.exports):
            folder = self.files / "exports" / export["name"]
            if folder.is_dir() and export["created"][:19] <= newest[:19]:
                shutil.rmtree(folder)
                state.exports.remove(export)
                state.queued = {of: mark for of, mark in state.queued.items() if not export["name"].endswith(mark[:8])}


def _read(export: Path, name: str) -> bytes:
    try:
        return (export / name).read_bytes()
    except OSError as error:
        raise RatingError(f"{export} is no export: make one with difix3d export --out {export}") from error


def _lines_of(export: Path) -> Iterator[dict[str, Any]]:
    """The votes that an export holds."""
    return (json.loads(line) for line in _read(export, "ratings.jsonl").splitlines())


def _went_back(store: RatingStore, state: _State) -> bool:
    """Whether the log is not the one that was queued, further on: one of a backup from before. Entries that were
    withdrawn are missing as well, but their numbers are not given again."""
    number, entry_id = state.last
    there = id_of(store, number) if number else None
    return last_given(store) < state.entry or there not in (None, entry_id)


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


_ORDER = {"images": -2, "marks": -1, README: 1}


def _link_or_copy(source: Path, target: Path) -> None:
    """Exports and rated pictures are replaced by new files and never written into, so a second name is a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        with replacing_file(target) as temporary:
            shutil.copyfile(source, temporary)
