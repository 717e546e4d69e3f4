"""Scenes that visitors of a public server left behind make room for new ones where the disk is full.

None goes before its room is needed, nor one that its owner used of late, that anybody voted on, or that the host made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable

from difix3d.errors import ConfigError, Difix3DError
from difix3d.machine import free_disk_bytes
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene

VARIABLE = "DIFIX3D_UNUSED_DAYS"
_UNUSED_DAYS = 14.0
_DAY_S, _BETWEEN_MARKS_S = 24 * 3600.0, 3600.0
_MARK = ".used"

log = logging.getLogger(__name__)


def unused_days() -> float:
    """After how many days unused a scene may make room; 0: never. ConfigError where the variable is no such number."""
    said = os.environ.get(VARIABLE, "")
    try:
        days = float(said) if said else _UNUSED_DAYS
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise ConfigError(f"{VARIABLE} is {said!r}: expected a number of days, or 0 to delete nothing")
    return days


def mark_used(scene: Scene) -> None:
    """Its owner is there."""
    if time.time() - _used_at(scene) > _BETWEEN_MARKS_S:
        with contextlib.suppress(OSError):  # a full disk, or a scene that just went: to look on is no harm
            (scene.root / _MARK).touch()


def make_room(scenes: Iterable[Scene], store: RatingStore, needed: int, delete: Callable[[Scene], None]) -> None:
    """Delete what may be deleted of `scenes`, the longest unused first, until `needed` bytes are free. delete: may
    refuse, by a Difix3DError."""
    days = unused_days()
    if not days:
        return
    before = time.time() - days * _DAY_S
    known = sorted(((_used_at(scene), scene) for scene in scenes if scene.info.get("owner")), key=lambda each: each[0])
    for used_at, scene in known:
        if used_at > before or free_disk_bytes(scene.root.parent) >= needed:
            return
        counts = store.counts(scene.id)
        if counts["ratings"] + counts["superseded"]:
            continue
        try:
            delete(scene)
        except Difix3DError as error:  # a job runs there
            log.info("%s stays: %s", scene.id, error)
        else:
            log.warning("%s was not used for %.0f days and made room for new scenes", scene.id, days)


def _used_at(scene: Scene) -> float:
    """Seconds since the epoch: when something was last made there, or its owner looked; now, where it just went."""
    times = []
    with contextlib.suppress(OSError):
        for path in (scene.root, *scene.root.iterdir()):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
    return max(times, default=time.time())
