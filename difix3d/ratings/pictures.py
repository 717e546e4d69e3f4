"""Find the exact pixels that a rating names, and keep them when a fix is made again.

A rated picture is kept in its scene as rated/SHA256.png: a second name of the same file (a hard link), so that it
costs no space until `fixed/` or `renders/` is written anew.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

from difix3d.atomic import replacing_file
from difix3d.errors import SceneError
from difix3d.scene import hash_file, safe_name
from difix3d.types import Candidate

MISSING, ALTERED = "missing", "altered"


def find_picture(
    scenes: Path, scene_id: str, path: str, sha256: str, *, again: bool = False
) -> tuple[Path | None, str]:
    """(the file whose bytes have this hash, ""), or (None, MISSING | ALTERED).

    path: inside the scene. One that leads out of the scene counts as missing. again: hash the file although this
    process did already and its time and size are the same.
    """
    found = MISSING
    for candidate in _places(scenes, scene_id, path, sha256):
        if candidate.is_file():
            status = candidate.stat()
            found_sha256 = hash_file(candidate) if again else _hash(candidate, status.st_mtime_ns, status.st_size)
            if found_sha256 == sha256:
                return candidate, ""
            found = ALTERED
    return None, found


@lru_cache(maxsize=20_000)
def _hash(path: Path, modified_ns: int, size: int) -> str:
    return hash_file(path)


def keep_picture(scenes: Path, scene_id: str, path: str, sha256: str) -> int | None:
    """Keep a picture that is being rated; its size in bytes, or None where its pixels are not at hand."""
    found, _ = find_picture(scenes, scene_id, path, sha256)
    if found is None:
        return None
    kept = _kept(scenes, scene_id, sha256)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        try:
            os.link(found, kept)
        except FileExistsError:
            pass  # another process kept it meanwhile: same name, same bytes
        except OSError:  # a file system without hard links
            with replacing_file(kept) as temporary:
                shutil.copyfile(found, temporary)
    return found.stat().st_size


def picture_size(scenes: Path, candidate: Candidate) -> tuple[int, int] | None:
    """(width, height) of a candidate's picture as its file says; None where it is not at hand or cannot be read."""
    from PIL import Image

    for place in _places(scenes, candidate.scene_id, candidate.image_path, candidate.sha256):
        try:
            with Image.open(place) as image:
                return image.size
        except OSError:
            continue
    return None


def _places(scenes: Path, scene_id: str, path: str, sha256: str) -> list[Path]:
    try:
        root = (scenes / safe_name(scene_id)).resolve()
    except SceneError:
        return []
    named = (root / path).resolve()
    return [place for place in (named, _kept(scenes, scene_id, sha256)) if place.is_relative_to(root)]


def _kept(scenes: Path, scene_id: str, sha256: str) -> Path:
    return scenes.resolve() / safe_name(scene_id) / "rated" / f"{safe_name(sha256)}.png"
