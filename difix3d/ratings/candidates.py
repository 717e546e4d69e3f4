"""What a scene folder offers to compare: the raw render of each frame, and every fix of it."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from difix3d.errors import SceneError
from difix3d.scene import Scene, hash_file
from difix3d.types import Candidate

FrameKey = tuple[str, int]
"""(trajectory, frame index)"""
Frames = Mapping[FrameKey, Sequence[Candidate]]

RENDER = "render"
_READ: dict[Path, tuple[tuple[tuple[str, int], ...], dict[FrameKey, list[Candidate]]]] = {}
_SCENES_READ = 200
_TICK_NS = 100_000_000
_FRAME_NAME = re.compile(r"(\d{5,})\.png")


def candidates_of(scene: Scene) -> dict[FrameKey, list[Candidate]]:
    """The candidates of each rendered frame, the raw render first, then the fixes by folder name. Quick where nothing
    changed since it was asked last.

    Reads renders/TRAJECTORY/*.png and fixed/TRAJECTORY/LABEL/candidates.json. Fixes whose frame or file is gone
    are left out, and those of a render that has been made anew since. SceneError for a candidates.json that cannot
    be read.
    """
    stamp = folders_stamp(scene)
    known = _READ.get(scene.root)
    if known is None or known[0] != stamp:
        known = (stamp, _read(scene))
        # A folder's time has ticks of milliseconds: of one that was written just now a later change might not show.
        if time.time_ns() - max((each[1] for each in stamp), default=0) > _TICK_NS:
            _READ[scene.root] = known
            while len(_READ) > _SCENES_READ:
                _READ.pop(next(iter(_READ)), None)
    return {frame: list(candidates) for frame, candidates in known[1].items()}


def folders_stamp(scene: Scene) -> tuple[tuple[str, int], ...]:
    """Changes when a render or a fix is made, made anew, or deleted: (path, time of its last change) of each folder and
    listing."""
    places = [
        *scene.root.glob("renders/[!.]*"),
        *scene.root.glob("fixed/[!.]*/[!.]*"),
        *scene.root.glob("fixed/[!.]*/[!.]*/candidates.json"),
    ]
    stamp = []
    for place in places:
        with contextlib.suppress(FileNotFoundError):  # replaced while we looked
            stamp.append((str(place), place.stat().st_mtime_ns))
    return tuple(sorted(stamp))


def _read(scene: Scene) -> dict[FrameKey, list[Candidate]]:
    frames: dict[FrameKey, list[Candidate]] = {}
    for path in sorted(scene.root.glob("renders/[!.]*/*.png")):
        if match := _FRAME_NAME.fullmatch(path.name):
            key = (path.parent.name, int(match[1]))
            status = path.stat()
            sha256 = _hash(str(path), status.st_mtime_ns, status.st_size)
            frames[key] = [Candidate(scene.id, *key, RENDER, scene.relative(path), sha256)]
    for listing in sorted(scene.root.glob("fixed/[!.]*/[!.]*/candidates.json")):
        for candidate in read_candidates(scene, listing):
            frame = frames.get((candidate.trajectory, candidate.frame_index))
            if frame is None or not scene.inside(candidate.image_path).is_file():
                continue
            if candidate.extra.get("render_sha256", frame[0].sha256) == frame[0].sha256:
                frame.append(candidate)
    return frames


def read_candidates(scene: Scene, listing: Path) -> list[Candidate]:
    """The candidates of one candidates.json: a list of Candidate fields, one entry per frame."""
    try:
        return [_candidate(entry) for entry in json.loads(listing.read_text())]
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise SceneError(
            f"{scene.relative(listing)}: expected a list of candidates, could not read it ({error}). "
            f"Fix the trajectory again, or remove the folder {listing.parent.name}."
        ) from error


def _candidate(entry: dict[str, Any]) -> Candidate:
    return Candidate(**{**entry, "references": tuple(entry.get("references", ()))})


@lru_cache(maxsize=100_000)
def _hash(path: str, modified_ns: int, size: int) -> str:
    """A render's sha256; asked again only when its time or size changes."""
    return hash_file(Path(path))
