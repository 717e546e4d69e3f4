"""A small scene folder with photos, cameras, renders, fixes and votes: what an export reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from colmap_writer import write_reconstruction

from difix3d.atomic import write_json
from difix3d.formats.camera_path import write_camera_path
from difix3d.formats.image import write_rgb
from difix3d.geometry import look_at
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import canonical_pair
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene, hash_file
from difix3d.types import Camera, Candidate, Rating, Reconstruction, Trajectory, View

PHOTO_SIZE, RENDER_SIZE = (48, 32), (24, 16)
HELDOUT = ("00001.png", "00004.png")
ORBIT_FRAMES = 3


def camera_at(degrees: float, size: tuple[int, int] = PHOTO_SIZE) -> Camera:
    position = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0.3])
    K = np.array([[40.0, 0.0, 24.0], [0.0, 40.0, 16.0], [0.0, 0.0, 1.0]])
    return Camera(K, *PHOTO_SIZE, look_at(position, np.zeros(3))).sized(*size)


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth, and different for each seed."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    waves = [np.sin(x * (3 + seed % 7) + y * (5 + channel) + seed) for channel in range(3)]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


def make_scene(
    scenes: Path, name: str, *, seed: int = 0, fixer: str = "reproject", orbit_frames: int = ORBIT_FRAMES
) -> Scene:
    """Six photos 20 degrees apart, two of them held out; renders and fixes of `heldout` and of `orbit`."""
    scene = Scene.create(scenes / name, source="test")
    names = [f"{number:05d}.png" for number in range(6)]
    for number, photo in enumerate(names):
        write_rgb(scene.images_dir / photo, picture(seed + number, PHOTO_SIZE))
    views = tuple(View(photo, camera_at(20.0 * number)) for number, photo in enumerate(names))
    points = np.random.default_rng(0).normal(size=(10, 3)) * 0.1
    write_reconstruction(scene.sparse_dir, Reconstruction(views, points, np.full((10, 3), 128, np.uint8)))
    write_json(scene.split_path, {"train": [n for n in names if n not in HELDOUT], "heldout": list(HELDOUT)})
    cameras = tuple(camera_at(20.0 * names.index(photo), RENDER_SIZE) for photo in HELDOUT)
    write_camera_path(scene.trajectory_path("heldout"), Trajectory("heldout", cameras, view_names=HELDOUT))
    for trajectory, frames in (("heldout", len(HELDOUT)), ("orbit", orbit_frames)):
        listed = []
        for index in range(frames):
            write_rgb(scene.renders_dir(trajectory) / f"{index:05d}.png", picture(seed + 50 + index, RENDER_SIZE))
            path = scene.fixed_dir(trajectory, fixer) / f"{index:05d}.png"
            write_rgb(path, picture(seed + 80 + index, RENDER_SIZE))
            extra = {"licence": "Apache-2.0"}
            file, sha256 = scene.relative(path), hash_file(path)
            listed.append(Candidate(name, trajectory, index, fixer, file, sha256, ("00003.png",), None, 0, extra))
        listing = scene.fixed_dir(trajectory, fixer) / "candidates.json"
        listing.write_text(json.dumps([asdict(candidate) for candidate in listed]))
    return scene


def vote_on(store: RatingStore, scene: Scene, choice: str, rater: str, index: int = 0) -> str:
    """choice, on a frame of `orbit`: fix | render | tie | both_bad | skip. Returns the rating's id."""
    render, fix = candidates_of(scene)["orbit", index][:2]
    a, b = canonical_pair(render, fix)
    named = {"fix": fix, "render": render}.get(choice)
    choice = choice if named is None else ("a" if named is a else "b")
    left_is = "ab"[(index + len(rater)) % 2]
    return store.add(Rating(a, b, choice, left_is, rater, 1.5, "00002.png"), f"{rater}-{scene.id}-{index}")
