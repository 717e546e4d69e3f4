"""Files that are made of one other file: made at first use, and anew once that is another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def derived_file(path: Path, source: Path, write: Callable[[Path], None]) -> Path:
    """`path`, written by `write` unless it was made of `source` as it is now.

    What is made bears its source's time of change: a source that was put there from elsewhere may be older than the one
    before it. FileNotFoundError without a source; `write` replaces the file atomically.
    """
    changed = source.stat().st_mtime_ns
    if not path.is_file() or path.stat().st_mtime_ns != changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        os.utime(path, ns=(changed, changed))
    return path
