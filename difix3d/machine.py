"""What this process may use of its machine: cores, memory, disk. In a container that is less than the machine has."""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """CPU cores, at least 1: those this process may run on, and no more than the container's share of time is worth."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, container_cores() or own)


def container_cores() -> int | None:
    """The container's share of processor time in cores, rounded up (cgroup v2, v1); None where there is no limit. The
    scheduler only stops whoever takes more: libraries see all the cores of the machine."""
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read()
            if quota > 0 and period > 0:
                return max(1, math.ceil(quota / period))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return None


def _quota_v2() -> tuple[int, int]:
    quota, period = (_CGROUP / "cpu.max").read_text().split()
    return int(quota), int(period)


def _quota_v1() -> tuple[int, int]:
    quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(quota), int(period)  # -1: no limit


def process_start(pid: int) -> float | None:
    """When a process began, in seconds: since the machine did, on Linux, where the time of day is made of it and of a
    clock that is set anew after a sleep; else unix time. None where there is no such process."""
    import psutil

    try:
        if sys.platform == "linux":
            # proc(5): field 22, counted after the name, which may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return None


def free_disk_bytes(place: Path) -> int:
    """Free on the disk of `place`, which need not exist yet."""
    place = place.absolute()
    return shutil.disk_usage(next(there for there in (place, *place.parents) if there.exists())).free


def free_memory_bytes() -> int:
    """Main memory that may be taken now: of the machine or of the container, whichever has less."""
    import psutil

    return min(psutil.virtual_memory().available, _container_bytes())


def _container_bytes() -> int:
    """What the container may still take (cgroup v2, v1); beyond any machine's where there is no limit.

    File pages that are not in use count as taken there, and are given up when asked for.
    """
    root = _CGROUP
    v1 = root / "memory"
    for limit, usage, statistics in (
        (root / "memory.max", root / "memory.current", root / "memory.stat"),
        (v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes", v1 / "memory.stat"),
    ):
        try:
            pages = dict(line.split() for line in statistics.read_text().splitlines())
            unused = int(pages.get("total_inactive_file", pages.get("inactive_file", 0)))
            return max(0, int(limit.read_text()) - int(usage.read_text()) + unused)
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return 2**62
