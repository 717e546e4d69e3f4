"""Which scenes there are to make pairs of: scene folders as they are, captures after `ingest` and `reconstruct`."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difix3d.errors import ConfigError, SceneError
from difix3d.events import Done, Event
from difix3d.formats.clip import VIDEO_SUFFIXES
from difix3d.formats.photos import PHOTO_SUFFIXES
from difix3d.pairs.plan import Captured
from difix3d.scene import Scene, folder_name
from difix3d.stages.ingest import IngestConfig, ingest
from difix3d.stages.reconstruct import ReconstructConfig, reconstruct
from difix3d.types import Reconstruction

_PHOTO_FOLDERS = ("images", "photos", "input")
"""A capture's photos may lie in a folder of this name, beside what is known of them."""
_INFO = "info.json"
_LICENCE_FACTS = ("licence", "permissive")


@dataclass(frozen=True)
class Source:
    """name: of the scene and of its folder among the pairs. capture: photos or a video to make it from; None: `path`
    is a scene already."""

    name: str
    path: Path
    capture: Path | None = None


def find_sources(given: Sequence[str]) -> list[Source]:
    """What `given` names: scenes, captures, or folders of these. ConfigError for what is none, and for two scenes of
    one name: files of both would have one place."""
    if not given:
        raise ConfigError("No scenes to make pairs of. Name scene folders or folders of photos with --scenes.")
    found: dict[str, Source] = {}
    for path in dict.fromkeys(Path(name).resolve() for name in given):
        sources = _sources_in(path)
        if not sources:
            raise ConfigError(
                f"{path}: expected a scene, a folder of photos, a video, or a folder of these; found none of them."
            )
        for source in sources:
            if found.setdefault(source.name, source).path != source.path:
                raise ConfigError(
                    f"{found[source.name].path} and {source.path} would both be called {source.name}. Rename one."
                )
    return list(found.values())


def _sources_in(path: Path) -> list[Source]:
    own = _source(path)
    if own or not path.is_dir():
        return [own] if own else []
    visible = (child for child in sorted(path.iterdir()) if not child.name.startswith("."))
    return [source for child in visible if (source := _source(child))]


def _source(path: Path) -> Source | None:
    if (path / "scene.json").is_file():
        return Source(path.name, path)
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return Source(folder_name(path.stem), path, path)
    for folder in (path, *(path / name for name in _PHOTO_FOLDERS)):
        if folder.is_dir() and any(_is_capture(child) for child in folder.iterdir()):
            return Source(folder_name(path.name), path, folder)
    return None


def _is_capture(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES


def open_scene(source: Source, scenes: Path, seed: int) -> Generator[Event, None, Scene]:
    """The source as a reconstructed scene; of a capture one is made in the folder `scenes`, or found there. Yields
    the stages' events but Done. CaptureError, ReconstructionError, SceneError for what makes no scene."""
    if source.capture is None:
        scene = Scene(source.path)
        if not scene.sparse_dir.is_dir():
            raise SceneError(f"holds no cameras yet. Run: difix3d reconstruct --scene {scene.root}")
        return scene
    scene = Scene.create(scenes / source.name, source=str(source.capture))
    for events in (
        ingest(scene, IngestConfig(capture=(str(source.capture),))),
        reconstruct(scene, ReconstructConfig(seed=seed)),
    ):
        for event in events:
            if not isinstance(event, Done):
                yield event
    return scene


def captured_photos(scene: Scene, reconstruction: Reconstruction) -> list[Captured]:
    """The registered photos with what tells cameras and sessions apart."""
    rows: dict[str, Any] = {}
    if scene.capture_info_path.is_file():
        rows = {row["name"]: row for row in json.loads(scene.capture_info_path.read_text())["photos"]}
    photos = []
    for view in reconstruction.views:
        row = rows.get(view.name, {})
        photos.append(
            Captured(
                view.name,
                view.camera.position,
                row.get("camera", ""),
                row.get("source", view.name).split("#")[0],
                (row.get("width", view.camera.width), row.get("height", view.camera.height)),
            )
        )
    return photos


def licence_of(source: Source, scene: Scene) -> dict[str, Any]:
    """{"licence": ..., "permissive": ...} as far as scene.json or an info.json beside the photos says so."""
    facts = scene.info
    made_from = Path(facts.get("source", ""))
    beside = (made_from, made_from.parent) if made_from.is_absolute() else ()
    for folder in (source.path, *beside):
        if (folder / _INFO).is_file():
            facts = {**json.loads((folder / _INFO).read_text()), **facts}
            break
    return {name: facts[name] for name in _LICENCE_FACTS if name in facts}
