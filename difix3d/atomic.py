"""Writes that are whole or not there: beside the target, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it becomes `path` when the block ends well, and goes when it does not.

    The temporary name keeps the suffix, so that writers which choose a format by it still work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_ident()}"  # two threads of the app may write one file at once
    temporary = path.with_name(f".{path.stem}.{writer}.partial{path.suffix}")
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
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Put back what a kill between the two renames of `replacing_folder` left aside."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically."""
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, sort_keys=True, default=str) + "\n")
