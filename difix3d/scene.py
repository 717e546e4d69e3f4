"""A scene is a folder. This is the only module that knows its paths, hashes and stage manifests.

scene.json                 name, created, source, world_from_colmap, dataset_split (ratings/export_scenes.py)
capture/                   decoded upload: photos, capture.json (EXIF focal priors, sharpness, order, video)
images/                    undistorted photos: the pixels every later stage sees
sparse/0/                  COLMAP model of images/
splats.ply, split.json     the fit, and which photos it saw ({"train": [...], "heldout": [...]})
trajectories/NAME.json     nerfstudio camera_path
renders/NAME/              00000.png, 00000_alpha.png, 00000_depth.npy
fixed/NAME/FIXER/          00000.png, candidates.json
strength/FIXER-SIZE.json   how its fixes compare with photos that the fit has not seen (stages/strengths.py)
gold/                      checks for raters whose answer is known, and gold.json (difix3d/ratings/gold.py)
rated/SHA256.png           every picture that somebody voted on, as it was (difix3d/ratings/pictures.py)
videos/                    NAME.webm, and NAME-FIXER.webm: the render on the left, its fix on the right
previews/                  live pictures of a running stage
stages/STAGE[-KEY].json    manifest, written last: the stage is complete
events.jsonl               every event of every run
jobs/                      what was asked to run here (difix3d.jobs)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import is_abandoned, recover_folder, write_json
from difix3d.errors import SceneError
from difix3d.events import Event, from_json, to_json

_DELETED = ".deleted"
"""Beside the scenes: an empty file for each that was deleted."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME, _LONGEST_PAIR = 80, 200


def safe_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """`name` if it can be a file name inside a scene; SceneError otherwise (no separators, no leading dot)."""
    if not _SAFE_NAME.fullmatch(name) or len(name) > longest:
        raise SceneError(
            f"{name[:longest]!r} is no name: use letters, digits, '.', '_' and '-', at most {longest} characters"
        )
    return name


def folder_name(text: str) -> str:
    """A file name made of `text`: what does not fit becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60] or "scene"


def mark_deleted(root: Path) -> None:
    """No new scene gets this one's name from now on, but where a person names the folder: votes go by it, and outlive
    the scene."""
    mark = root.parent / _DELETED / root.name
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def was_deleted(root: Path) -> bool:
    return (root.parent / _DELETED / root.name).exists()


class Scene:
    """One scene folder. Open an existing one with Scene(root), or make one with Scene.create."""

    def __init__(self, root: Path | str):
        self.root = Path(root).resolve()
        if not (self.root / "scene.json").is_file():
            raise SceneError(
                f"{self.root} is no scene: it holds no scene.json. Make one with: difix3d ingest CAPTURE --scene {root}"
            )
        for folder in (self.capture_dir, self.images_dir, self.sparse_dir.parent):
            recover_folder(folder)

    @classmethod
    def create(cls, root: Path | str, name: str | None = None, source: str = "") -> Scene:
        """Make the folder, or open it if it is a scene already."""
        root = Path(root)
        if not (root / "scene.json").is_file():
            if root.is_file():
                raise SceneError(f"{root} is a file: a scene needs a folder of its own")
            root.mkdir(parents=True, exist_ok=True)
            data = {
                "name": name or root.name,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "source": source,
            }
            write_json(root / "scene.json", data)
        return cls(root)

    # What the scene says of itself

    @property
    def id(self) -> str:
        return self.root.name

    @property
    def info(self) -> dict[str, Any]:
        """scene.json as a dict."""
        return json.loads((self.root / "scene.json").read_text())

    def update_info(self, **changes: Any) -> None:
        """Merge `changes` into scene.json."""
        write_json(self.root / "scene.json", {**self.info, **changes})

    @property
    def world_from_colmap(self) -> NDArray[np.float64]:
        """[4, 4] similarity that brought SfM's world to ours; identity where nothing was recorded."""
        return np.asarray(self.info.get("world_from_colmap", np.eye(4).tolist()), dtype=np.float64)

    # Paths

    @property
    def capture_dir(self) -> Path:
        return self.root / "capture"

    @property
    def capture_info_path(self) -> Path:
        return self.capture_dir / "capture.json"

    @property
    def images_dir(self) -> Path:
        return self.root / "images"

    @property
    def sparse_dir(self) -> Path:
        return self.root / "sparse" / "0"

    @property
    def splats_path(self) -> Path:
        return self.root / "splats.ply"

    @property
    def split_path(self) -> Path:
        return self.root / "split.json"

    @property
    def previews_dir(self) -> Path:
        return self.root / "previews"

    @property
    def events_path(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def jobs_dir(self) -> Path:
        return self.root / "jobs"

    @property
    def enough_path(self) -> Path:
        """There once somebody found the fit under way good enough (jobs.keep): it ends, and what it has is kept."""
        return self.jobs_dir / "fit.enough"

    def trajectory_path(self, trajectory: str) -> Path:
        return self.root / "trajectories" / f"{safe_name(trajectory)}.json"

    def renders_dir(self, trajectory: str) -> Path:
        return self.root / "renders" / safe_name(trajectory)

    def fixed_dir(self, trajectory: str, fixer: str) -> Path:
        """`fixer` is a folder-safe label: see `folder_name`."""
        return self.root / "fixed" / safe_name(trajectory) / safe_name(fixer)

    @property
    def strengths_dir(self) -> Path:
        return self.root / "strength"

    def strength_path(self, fixer: str, long_side_px: int) -> Path:
        return self.strengths_dir / f"{folder_name(Path(fixer).name)}-{long_side_px}.json"

    def video_path(self, name: str) -> Path:
        """`name`: a trajectory, or TRAJECTORY-FIXER: render and fix side by side. WebM (formats.video)."""
        return self.root / "videos" / f"{safe_name(name, _LONGEST_PAIR)}.webm"

    def relative(self, path: Path) -> str:
        """`path` as it is named inside the scene, with forward slashes."""
        return path.resolve().relative_to(self.root).as_posix()

    def inside(self, relative: str) -> Path:
        """The path of a name inside the scene; SceneError for one that leads out of it."""
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root):
            raise SceneError(f"{relative!r} leads out of the scene folder")
        return path

    def split(self) -> dict[str, list[str]]:
        """{"train": names, "heldout": names}; both empty where no fit was made here."""
        if not self.split_path.is_file():
            return {"train": [], "heldout": []}
        return json.loads(self.split_path.read_text())

    # Manifests

    def manifest_path(self, stage: str, key: str = "") -> Path:
        return self.root / "stages" / (f"{stage}-{safe_name(key, _LONGEST_PAIR)}.json" if key else f"{stage}.json")

    def manifest(self, stage: str, key: str = "") -> dict[str, Any] | None:
        """The manifest of a complete stage, or None."""
        path = self.manifest_path(stage, key)
        return json.loads(path.read_text()) if path.is_file() else None

    def hash_inputs(self, names: list[str]) -> dict[str, str]:
        """sha256 of each file, or of each folder's sorted names and contents; "missing" where there is none."""
        return {name: hash_path(self.root / name) for name in names}

    def sweep_partials(self) -> None:
        """Remove what killed writers left half-written beside its target."""
        for path in list(self.root.rglob(".*.partial*")):
            if is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    # Events

    def log(self, event: Event, job: str = "") -> None:
        """Append one event to events.jsonl (one write, so that lines of two processes do not mix). OSError where the
        disk takes no more; what it took of the line is not read, and the next one begins below it."""
        line = json.dumps({"t": time.time(), "job": job, **to_json(event)}, default=str).encode() + b"\n"
        descriptor = os.open(self.events_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.events_path))
        finally:
            os.close(descriptor)

    def events(self, offset: int = 0) -> Iterator[tuple[int, float, str, Event]]:
        """(offset after the line, unix time, job id, event) of each complete line from byte `offset` on."""
        if not self.events_path.is_file():
            return
        with self.events_path.open("rb") as log:
            log.seek(offset)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    data = json.loads(line)
                    found = offset, data["t"], data["job"], from_json(data)
                except (ValueError, KeyError, TypeError):  # cut short by a full disk
                    continue
                yield found


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted relative names and contents; "missing" where there is none."""
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        return "missing"
    total = hashlib.sha256()
    for child in sorted(path.rglob("*")):
        if child.is_file() and not any(part.startswith(".") for part in child.relative_to(path).parts):
            total.update(f"{child.relative_to(path).as_posix()}\0{hash_file(child)}\n".encode())
    return total.hexdigest()
