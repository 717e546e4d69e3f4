"""Reconstruct: capture/ in, undistorted images/ and their cameras and sparse points out, in a normalised world."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.atomic import partial_folder, replacing_folder
from difix3d.errors import SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import write_rgb
from difix3d.geometry import normalising_similarity, transform_reconstruction, triangulation_angles_deg
from difix3d.scene import Scene
from difix3d.sfm import load_backend
from difix3d.sfm.base import PHASES, Photo, PhotoSet, Said, SfmResult, SfmSettings, Snapshot
from difix3d.sfm.pose_files import files_of
from difix3d.stages.base import option, stage
from difix3d.types import Reconstruction

PREVIEW_PATH = "previews/sparse.jpg"
_NAMES_TOLD = 12
_PHASE_NAMES = dict(zip(PHASES, ("features", "matches", "cameras", "refining", "straightening"), strict=True))


@dataclass(frozen=True)
class ReconstructConfig:
    """How cameras are found. "auto" chooses by the capture."""

    matching: str = option("auto", "which pairs to match", choices=("auto", "exhaustive", "sequential", "retrieval"))
    mapper: str = option("auto", "how cameras are placed", choices=("auto", "incremental", "global"))
    known_poses: str = option("", "a COLMAP folder or a nerfstudio transforms.json to take the cameras from")
    seed: int = option(0, "of the random choices", minimum=0)
    threads: int = option(0, "processor threads; 0: all", minimum=0)


@stage("reconstruct", inputs=lambda scene, config: _inputs(config), outputs=("images", "sparse"))
def reconstruct(scene: Scene, config: ReconstructConfig) -> Generator[Event, None, dict[str, Any]]:
    """Find the cameras of the photos in capture/; see ReconstructConfig.

    Figures: registered, photos, points, reprojection_px (mean over the points), median_triangulation_deg,
    left_out (names as the person gave them), seconds_* of each phase, and what the backend chose.
    """
    photos = read_photos(scene)
    backend = load_backend("known_poses" if config.known_poses else "colmap")
    settings = SfmSettings(config.matching, config.mapper, config.known_poses, config.seed, config.threads)
    with _workspace(scene) as workspace:
        result = yield from _shown(scene, backend.reconstruct(photos, workspace / "sfm", settings))
        left_out = [photos.source_of(name) for name in result.left_out]
        if left_out:
            yield Warned("reconstruct", _told(left_out, len(photos.photos)))

        yield Progress("reconstruct", "Straightening the world", 0, 0)
        from difix3d.sfm.undistort import transform_model

        found = read_reconstruction(result.sparse_dir, result.images_dir)
        world_from_colmap = normalising_similarity(found)
        transform_model(result.sparse_dir, workspace / "sparse" / "0", world_from_colmap)
        reconstruction = read_reconstruction(workspace / "sparse" / "0")
        angles = triangulation_angles_deg(reconstruction)

        yield _preview(scene, reconstruction, _pace(result.figures))
        _save(scene, result.images_dir, workspace / "sparse", world_from_colmap)
    median = round(float(np.median(angles)), 2) if len(angles) else 0.0
    return {**result.figures, "median_triangulation_deg": median, "left_out": left_out}


def _inputs(config: ReconstructConfig) -> tuple[str, ...]:
    return ("capture", *files_of(config.known_poses)) if config.known_poses else ("capture",)


def read_photos(scene: Scene) -> PhotoSet:
    """What ingest left. SceneError where it has not run."""
    if not scene.capture_info_path.is_file():
        raise SceneError(
            f"{scene.root} holds no photos yet. Run: difix3d ingest CAPTURE --scene {scene.root}, then try again."
        )
    info = json.loads(scene.capture_info_path.read_text())
    photos = tuple(
        Photo(**{field.name: row[field.name] for field in fields(Photo) if field.name in row})  # older rows: no lens
        for row in info["photos"]
    )
    return PhotoSet(scene.capture_dir, photos, bool(info["ordered"]))


@contextlib.contextmanager
def _workspace(scene: Scene) -> Iterator[Path]:
    """A folder inside the scene (so that renames out of it are atomic), gone afterwards; a killed one is swept."""
    with partial_folder(scene.root / "reconstruct") as folder:
        (folder / "sfm").mkdir()
        yield folder


def _shown(scene: Scene, work: Generator[Said, None, SfmResult]) -> Generator[Event, None, SfmResult]:
    """The backend's events; what it has found so far becomes a picture."""
    with contextlib.closing(work):
        while True:
            try:
                said = next(work)
            except StopIteration as end:
                return end.value
            if not isinstance(said, Snapshot):
                yield said
            elif len(said.reconstruction.views) > 1:
                similarity = normalising_similarity(said.reconstruction)
                yield _preview(scene, transform_reconstruction(said.reconstruction, similarity))


def _preview(scene: Scene, reconstruction: Reconstruction, more: str = "") -> Artifact:
    """previews/sparse.jpg: cameras and points of a normalised reconstruction. more: for the end of its caption."""
    from difix3d.sfm.picture import draw

    write_rgb(scene.root / PREVIEW_PATH, draw(reconstruction))
    caption = f"{len(reconstruction.views)} cameras, {len(reconstruction.points):,} points{more}"
    return Artifact("reconstruct", "sparse", PREVIEW_PATH, caption)


def _pace(figures: dict[str, Any]) -> str:
    """ " · 2.7 s features, 2.9 s matches, ...": which part of finding the cameras took how long."""
    seconds = {name: figures.get(f"seconds_{phase}") for phase, name in _PHASE_NAMES.items()}
    spent = (f"{value:.1f} s {name}" for name, value in seconds.items() if value is not None)
    return f" · {', '.join(spent)}"


def _save(scene: Scene, images_dir: Path, sparse_dir: Path, world_from_colmap: np.ndarray) -> None:
    # The old manifest goes first: it vouches for the cameras that are about to be replaced.
    scene.manifest_path("reconstruct").unlink(missing_ok=True)
    for source, target in ((images_dir, scene.images_dir), (sparse_dir, scene.sparse_dir.parent)):
        with replacing_folder(target) as folder:
            for path in source.iterdir():
                path.rename(folder / path.name)
    scene.update_info(world_from_colmap=world_from_colmap.tolist())


def _told(left_out: list[str], total: int) -> str:
    names = ", ".join(left_out[:_NAMES_TOLD])
    more = f" and {len(left_out) - _NAMES_TOLD} more" if len(left_out) > _NAMES_TOLD else ""
    return (
        f"Left out {len(left_out)} of {total} photos, whose place could not be found: {names}{more}. They show "
        "something else, are blurred, or overlap too little with the others: add photos in between to bring them in."
    )
