"""What waits in an outbox goes to its repository: now, or every few minutes for as long as a program runs.

Files are only ever added, under names that are given once; one that is sent twice, since the answer was lost, is the
same. The live database is never sent.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import CommitOperationAdd, CommitScheduler, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from sqlalchemy.exc import SQLAlchemyError

from difix3d.errors import ConfigError, Difix3DError, RatingError
from difix3d.hub.refusals import is_transport
from difix3d.ratings.export import MARK
from difix3d.ratings.push.outbox import Outbox
from difix3d.ratings.store import RatingStore

log = logging.getLogger(__name__)

REPOSITORY_VARIABLE = "DIFIX3D_DATASET_REPO"
EVERY_MIN = 5.0
"""The least that the Hub's guide advises: each push is a commit."""
_FILES_PER_COMMIT = 200
_KEPT = "Nothing is lost: what waits is kept and tried again at the next push"


@dataclass(frozen=True)
class Pushed:
    """commits, files: that the Hub took; waiting: lines of the log that still wait."""

    repository: str
    commits: int = 0
    files: int = 0
    waiting: int = 0


def outbox_of(scenes: Path, repository: str) -> Path:
    """Where what waits for a repository is kept: beside the folder of scenes. ConfigError for what is no repository."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is no dataset repository: expected OWNER/NAME, as the Hub has it") from error
    if repository.count("/") != 1:
        raise ConfigError(f"{repository!r} is no dataset repository: expected OWNER/NAME, as the Hub has it")
    return scenes.resolve().parent / "outbox" / repository.replace("/", "--")


def push_now(store: RatingStore, scenes: Path, repository: str, export: Path | None = None) -> Pushed:
    """Queue what was said since the last time, and an export where one is named, and send all that waits.

    RatingError in words where the Hub refuses or is away: what waits is kept then.
    """
    box = Outbox(outbox_of(scenes, repository))
    with _alone(box):
        box.collect(store, scenes)
        if export is not None:
            box.queue_export(store, export.resolve())
        with telling(repository, box):
            api = HfApi()
            api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
            return _send(api, repository, box, threading.Lock())


class VoteScheduler(CommitScheduler):
    """Pushes what is new every few minutes, and when the program ends. exports: folder of exports, each of which is
    pushed once. told: what went wrong the last time, "" where nothing did."""

    def __init__(
        self, store: RatingStore, scenes: Path, repository: str, exports: Path | None = None, every: float = EVERY_MIN
    ):
        self.box = Outbox(outbox_of(scenes, repository))
        self.told = ""
        self.pushed = Pushed(repository)
        self._store, self._scenes, self._exports = store, scenes, exports
        # The thread of the scheduler starts in here.
        super().__init__(repo_id=repository, folder_path=self.box.files, every=every, repo_type="dataset", private=True)

    def push_to_hub(self) -> Any:
        try:
            with _alone(self.box):
                with self.lock:
                    self._collect()
                with telling(self.repo_id, self.box):
                    self.pushed = _send(self.api, self.repo_id, self.box, self.lock)
            self.told = ""
        except (Difix3DError, SQLAlchemyError, OSError) as error:
            # Told in words here, and tried again: raised, it would be a traceback when the program ends.
            self.told = str(error)
            log.warning("%s", error)
            return
        if self.pushed.files:
            log.info("pushed %d files to %s", self.pushed.files, self.repo_id)

    def _collect(self) -> None:
        self.box.collect(self._store, self._scenes)
        for mark in sorted(self._exports.glob(f"[!.]*/{MARK}")) if self._exports else ():
            try:
                self.box.queue_export(self._store, mark.parent)
            except RatingError as error:  # written anew meanwhile, or to be made again
                log.info("%s", error.message)


class Pushing:
    """A VoteScheduler that begins when the Hub lets it: a program starts without the Hub, too."""

    def __init__(
        self, store: RatingStore, scenes: Path, repository: str, exports: Path | None = None, every: float = EVERY_MIN
    ):
        self.repository = repository
        self.scheduler: VoteScheduler | None = None
        self._box = Outbox(outbox_of(scenes, repository))
        self._arguments = (store, scenes, repository, exports, every)
        self._every_s = every * 60
        self._told = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._begin, name="pushing", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """repository, waiting (lines of the log), told (what goes wrong, "" where nothing does)."""
        told = self.scheduler.told if self.scheduler else self._told
        return {"repository": self.repository, "waiting": self._box.votes_waiting(), "told": told}

    def stop(self) -> None:
        """Push no more."""
        self._stopped.set()
        self._thread.join()
        if self.scheduler:
            self.scheduler.stop()

    def _begin(self) -> None:
        while not self._stopped.is_set():
            try:
                with telling(self.repository, self._box):
                    self.scheduler = VoteScheduler(*self._arguments)
                return
            except Exception as error:
                self._told = str(error)
                log.warning("%s", error)
            self._stopped.wait(self._every_s)


def begin_pushing(store: RatingStore, scenes: Path, exports: Path) -> Pushing | None:
    """As the environment says: DIFIX3D_DATASET_REPO names the repository, DIFIX3D_PUSH_MINUTES how often. None where no
    repository is named. ConfigError for what makes no sense."""
    repository = os.environ.get(REPOSITORY_VARIABLE, "")
    if not repository:
        return None
    every = os.environ.get("DIFIX3D_PUSH_MINUTES") or EVERY_MIN
    try:
        minutes = float(every)
    except ValueError as error:
        raise ConfigError(f"DIFIX3D_PUSH_MINUTES is {every!r}: expected a number of minutes") from error
    if not minutes > 0:
        raise ConfigError(f"DIFIX3D_PUSH_MINUTES is {every}: expected more than 0")
    return Pushing(store, scenes, repository, exports, minutes)


@contextmanager
def telling(repository: str, box: Outbox) -> Iterator[None]:
    """Turn what the Hub, the client and the network raise into a RatingError that says what to do."""
    if not get_token():
        raise RatingError(
            f"No token of the Hub: set HF_TOKEN to one that may write to {repository} "
            f"(https://huggingface.co/settings/tokens). {_KEPT}."
        )
    try:
        yield
    except Difix3DError:
        raise
    except (HfHubHTTPError, RepositoryNotFoundError) as error:
        raise RatingError(f"{_refused(repository, error)} {_KEPT}. (in {box.folder})") from error
    except Exception as error:
        if not is_transport(error) and not isinstance(error, ConnectionError | TimeoutError):
            raise
        reason = type(error).__name__
        raise RatingError(f"Could not reach the Hub to push to {repository} ({reason}). {_KEPT}.") from error


def _refused(repository: str, error: HfHubHTTPError) -> str:
    code = error.response.status_code
    if code == 401:
        return f"The Hub does not know this token (401): set HF_TOKEN to a valid one that may write to {repository}."
    if code == 403:
        return f"This token may not write to {repository} (403): set HF_TOKEN to one that may, or name another."
    if code == 404:
        return f"There is no dataset {repository} on the Hub, or this token may not see it (404)."
    return f"The Hub answers {code} to a push to {repository}."


def _send(api: HfApi, repository: str, box: Outbox, lock: Any) -> Pushed:
    """All that waits, in commits of some files; each is taken out of the outbox when the Hub has it."""
    done = Pushed(repository)
    while True:
        with lock:
            files = [(path, path.stat().st_mtime_ns) for path in box.waiting()[:_FILES_PER_COMMIT]]
        if not files:
            return replace(done, waiting=box.votes_waiting())
        additions = [CommitOperationAdd(box.name(path), path) for path, _ in files]
        when = datetime.now(UTC).isoformat(timespec="seconds")
        api.create_commit(repository, additions, commit_message=f"Ratings until {when}", repo_type="dataset")
        with lock:
            box.sent(files)
        done = replace(done, commits=done.commits + 1, files=done.files + len(files))


@contextmanager
def _alone(box: Outbox) -> Iterator[None]:
    """RatingError where another process pushes from this outbox just now."""
    lock = FileLock(box.folder / ".lock")
    try:
        with lock.acquire(timeout=60):
            yield
    except Timeout as error:
        raise RatingError(f"Another program pushes from {box.folder} just now. Try again when it has ended.") from error
