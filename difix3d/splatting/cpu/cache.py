"""Where compiled kernels are kept, and filling that place before they are needed. Loads neither numba nor torch."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_COMPLETE, _STARTED, _LOCK = "complete", "started", "lock"
_LONGEST_SECONDS = 300.0
"""A background compiler that has not finished after so long has died: 15 s are usual on an idle core."""
_BACKGROUND = "import os; hasattr(os, 'nice') and os.nice(10)\nfrom difix3d.splatting import warm_up; warm_up()"


@functools.cache
def kernel_folder() -> Path:
    """A writable folder for compiled kernels, named by a hash of their sources.

    The hash is there because numba looks only at the file of a kernel, not at those it calls into.
    $NUMBA_CACHE_DIR, then the user's cache folder, then (read-only home) the temporary folder.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    name = f"difix3d-kernels-{hashlib.sha256(sources).hexdigest()[:12]}"
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for parent in (os.environ.get("NUMBA_CACHE_DIR"), home):
        if parent:
            folder = Path(parent) / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    return folder
            except OSError:
                continue
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid() if hasattr(os, 'getuid') else 0}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if _only_ours(folder) else Path(tempfile.mkdtemp(prefix=name))


def _only_ours(folder: Path) -> bool:
    """Whether nobody else can put files there: what lies in a cache is run."""
    status = folder.stat()
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def is_complete() -> bool:
    """Whether every kernel has been compiled here before."""
    return (kernel_folder() / _COMPLETE).is_file()


@contextmanager
def compiling() -> Iterator[None]:
    """Hold while compiling every kernel: who comes second waits, and then finds them on disk."""
    if is_complete():
        yield
        return
    with FileLock(kernel_folder() / _LOCK, thread_local=False):
        yield
        (kernel_folder() / _COMPLETE).touch()


def compile_in_background() -> subprocess.Popen[bytes] | None:
    """Compile every kernel in a process of its own, at low priority, while others find cameras.

    None where that has been done, or is being done. The process may outlive this one: its work is for the disk.
    """
    if is_complete() or not _first_to_start():
        return None
    return subprocess.Popen(
        [sys.executable, "-c", _BACKGROUND],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _first_to_start() -> bool:
    stamp = kernel_folder() / _STARTED
    try:
        stamp.open("x").close()
    except FileExistsError:
        if time.time() - stamp.stat().st_mtime < _LONGEST_SECONDS:
            return False
        stamp.touch()
    return True
