"""Writes that are whole or not there: beside the target, fsync, rename."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difix3d.machine import process_start

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:24] or "host"
_WRITER = re.compile(r"\.([A-Za-z0-9]+)-(\d+)-(\d+)-[^.]*\.partial")
_ELSEWHERE_SECONDS = 3600.0
"""What another machine writes, to a folder that both share, changes more often than this."""


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it becomes `path` when the block ends well, and goes when it does not.

    The temporary name keeps the suffix, so that writers which choose a format by it still work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    thread = threading.get_ident()  # two threads of the app may write one file at once
    temporary = path.with_name(f".{path.stem}.{_writer()}-{thread}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`; it becomes `path` when the block ends well, and goes when it does not.

    Two renames: between them the old folder is at `.NAME.old`, where `recover_folder` finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(path) as temporary:
        temporary.chmod(0o755)
        yield temporary
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, for one writer, gone afterwards if still there; its name says whose it is."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_writer()}-", suffix=".partial", dir=path.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_abandoned(partial: Path) -> bool:
    """Whether whoever wrote this file or folder, named as those above, is gone: killed, since it would be gone too.

    By the process in the name, and when that began, since numbers are given again; where it is of another machine, by
    how long nothing in it has changed.
    """
    writer = _WRITER.search(partial.name)
    if writer is None or writer[1] != _HOST:
        return time.time() - _changed(partial) > _ELSEWHERE_SECONDS
    began = process_start(int(writer[2]))
    return began is None or abs(began - int(writer[3])) > 1


def _writer() -> str:
    pid = os.getpid()
    return f"{_HOST}-{pid}-{process_start(pid) or 0:.0f}"


def _changed(path: Path) -> float:
    """When anything in it last changed, unix time; now where it goes meanwhile."""
    try:
        return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


def recover_folder(path: Path) -> None:
    """Put back what a kill between the two renames of `replacing_folder` left aside."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically."""
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, sort_keys=True, default=str) + "\n")
