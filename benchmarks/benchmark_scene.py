"""Splats for benchmarks: a real scene fitted to a chosen number of splats, the same ones on every machine.

Random splats would not do: how many a pixel meets before it is opaque, and how long and thin they are, decides the
time. Fits are limited by steps, not seconds, so that they repeat, and are kept under benchmarks/.cache.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from difix3d.events import Event, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb
from difix3d.formats.ply import read_splats, write_splats
from difix3d.scene import Scene
from difix3d.splatting.trainer import Photo, Trainer, TrainSettings
from difix3d.types import Reconstruction, Splats

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "benchmarks" / ".cache"
COURTYARD = ROOT / "examples" / "courtyard"
WIDTH, HEIGHT = 480, 270
STEPS = 1500
FITTING_CODE = ("difix3d/splatting", "difix3d/stages/fit.py")


@dataclass(frozen=True)
class FittedScene:
    """name; photos at WIDTH x HEIGHT, which were fitted; splats by how many were asked for."""

    name: str
    reconstruction: Reconstruction
    photos: tuple[Photo, ...]
    splats: dict[int, Splats]


def fitted_scene(folder: Path | None, counts: Iterable[int]) -> FittedScene:
    """The scene in `folder` (None: the bundled courtyard with its true cameras), fitted once for each count."""
    scene = Scene(folder) if folder else _courtyard()
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    photos = photos_at(reconstruction, WIDTH, HEIGHT)
    splats = {count: _fitted(scene.id, photos, reconstruction, count) for count in counts}
    return FittedScene(scene.id, reconstruction, photos, splats)


def photos_at(reconstruction: Reconstruction, width: int, height: int) -> tuple[Photo, ...]:
    """Every photo and its camera at this size."""
    return tuple(
        Photo(view.name, view.camera.sized(width, height), read_rgb(view.image_path, (width, height)))
        for view in reconstruction.views
        if view.image_path is not None
    )


def code_digest() -> str:
    """Changes with the code that decides what a fit gives."""
    digest = hashlib.sha256()
    for part in FITTING_CODE:
        for path in sorted((ROOT / part).rglob("*.py")) or [ROOT / part]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def _courtyard() -> Scene:
    """The bundled photos with the cameras they were rendered from, and points triangulated at those."""
    from difix3d.stages.ingest import IngestConfig, ingest
    from difix3d.stages.reconstruct import ReconstructConfig, reconstruct

    scene = Scene.create(CACHE / "courtyard")
    _quietly(ingest(scene, IngestConfig((str(COURTYARD / "images"),))))
    _quietly(reconstruct(scene, ReconstructConfig(known_poses=str(COURTYARD / "transforms.json"))))
    return scene


def _fitted(name: str, photos: tuple[Photo, ...], reconstruction: Reconstruction, count: int) -> Splats:
    settings = TrainSettings(seconds=0, max_steps=STEPS, max_splats=count)
    digest = hashlib.sha256(repr(astuple(settings)).encode())
    digest.update(np.ascontiguousarray(reconstruction.points).tobytes())
    path = CACHE / f"{name}-{count}-{digest.hexdigest()[:8]}.ply"
    if not path.is_file():
        _tell(f"fitting {count:,} splats to {name} ({STEPS} steps; kept in {path.relative_to(ROOT)})")
        trainer = Trainer(settings, photos, [], reconstruction.points, reconstruction.colors)
        for _ in trainer.run():
            pass
        CACHE.mkdir(parents=True, exist_ok=True)
        write_splats(path, trainer.splats())
    return read_splats(path)


def _quietly(events: Iterable[Event]) -> None:
    """Run a stage; only its warnings are told."""
    for event in events:
        if isinstance(event, Warned):
            _tell(event.message)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
