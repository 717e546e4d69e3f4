"""What a scene folder offers to compare: the raw render of each frame, and every fix of it."""

from __future__ import annotations

import json
import re
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
_FRAME_NAME = re.compile(r"(\d{5,})\.png")


def candidates_of(scene: Scene) -> dict[FrameKey, list[Candidate]]:
    """The candidates of each rendered frame, the raw render first, then the fixes by folder name.

    Reads renders/TRAJECTORY/*.png and fixed/TRAJECTORY/LABEL/candidates.json. Fixes whose frame or file is gone
    are left out, and those of a render that has been made anew since. SceneError for a candidates.json that cannot
    be read.
    """
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
