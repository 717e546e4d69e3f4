"""Fits to some of a capture's photos, to judge renders and fixes at the others.

Protocols, on the sorted photos: dense (all but every eighth), everyK (every K-th), half (the first half, so that the
others lie beyond). Fits are limited by steps, so that they repeat, and are kept under benchmarks/.cache; other fitting
code makes them anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmark_scene import CACHE, code_digest

from difix3d.atomic import write_json
from difix3d.errors import ConfigError
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb
from difix3d.formats.ply import write_splats
from difix3d.scene import Scene
from difix3d.splatting.trainer import Photo, Trainer, TrainSettings
from difix3d.types import View

LONG_SIDE_PX, MAX_SPLATS = 480, 50_000
"""As the quick preset."""


def split(names: Sequence[str], protocol: str) -> tuple[list[str], list[str]]:
    """(photos to fit, photos kept out) of "dense", "half" or "everyK". ConfigError for another protocol."""
    names = sorted(names)
    every = protocol.removeprefix("every")
    if protocol == "dense":
        train = [name for index, name in enumerate(names) if index % 8]
    elif protocol == "half":
        train = names[: len(names) // 2]
    elif every != protocol and every.isdigit() and int(every) > 1:
        train = names[int(every) // 2 :: int(every)]
    else:
        raise ConfigError(f"No protocol {protocol!r}: expected dense, half, or every3 and the like.")
    return train, [name for name in names if name not in set(train)]


def sparse_fit(source: Path, protocol: str, steps: int) -> Scene:
    """A scene with the cameras and photos of the reconstructed scene at `source`, fitted by `protocol`."""
    scene = Scene.create(CACHE / "sparse" / f"{source.name}-{protocol}-{steps}-{code_digest()}")
    if scene.splats_path.is_file():
        return scene
    for part in ("images", "sparse"):
        shutil.copytree(source / part, scene.root / part, dirs_exist_ok=True)
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    views = {view.name: view for view in reconstruction.views}
    train, heldout = split(list(views), protocol)
    settings = TrainSettings(seconds=0, max_steps=steps, max_splats=MAX_SPLATS)
    photos = [photo_of(views[name]) for name in train]
    trainer = Trainer(settings, photos, [], reconstruction.points, reconstruction.colors)
    for _ in trainer.run():
        pass
    write_json(scene.split_path, {"train": train, "heldout": heldout})
    write_splats(scene.splats_path, trainer.splats())
    return scene


def photo_of(view: View) -> Photo:
    """The photo at the size of the quick preset."""
    assert view.image_path is not None, "read_reconstruction was given images_dir"
    camera = view.camera.resized(min(LONG_SIDE_PX, max(view.camera.width, view.camera.height)))
    return Photo(view.name, camera, read_rgb(view.image_path, (camera.width, camera.height)))
