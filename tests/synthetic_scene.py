"""A tiny scene with known cameras: coloured splats in a ball, photographed from a ring by our own rasterizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from colmap_writer import write_reconstruction

from difix3d.formats.image import to_uint8, write_rgb
from difix3d.scene import Scene
from difix3d.splatting import render_view
from difix3d.types import SH_C0, Camera, Reconstruction, Splats, View


@dataclass(frozen=True)
class SyntheticScene:
    """photos: one [H, W, 3] uint8 per view of the reconstruction."""

    reconstruction: Reconstruction
    photos: tuple[np.ndarray, ...]


def make_synthetic_scene(views: int = 12, width: int = 64, height: int = 48, seed: int = 0) -> SyntheticScene:
    rng = np.random.default_rng(seed)
    count = 400
    means = rng.standard_normal((count, 3))
    means *= 0.35 * rng.uniform(0.3, 1, (count, 1)) ** (1 / 3) / np.linalg.norm(means, axis=1, keepdims=True)
    colors = 0.5 + 0.5 * np.sin(9 * means + rng.uniform(0, 6, 3))
    true = Splats(
        means,
        rng.standard_normal((count, 4)),
        rng.uniform(-4.0, -2.6, (count, 3)),
        rng.uniform(0, 4, count),
        ((colors - 0.5) / SH_C0)[:, None],
    )
    cameras = [_looking_in(angle, width, height) for angle in np.linspace(0, 2 * np.pi, views, endpoint=False)]
    photos = tuple(to_uint8(render_view(true, camera, renderer="cpu")[0]) for camera in cameras)
    seen = rng.permutation(count)[: count // 2]
    points = means[seen] + 0.005 * rng.standard_normal((len(seen), 3))
    names = [f"{index:05d}.png" for index in range(views)]
    everything = np.arange(len(seen))
    reconstruction = Reconstruction(
        tuple(View(name, camera, None, everything) for name, camera in zip(names, cameras)),
        points,
        to_uint8(colors[seen]),
        np.ones(len(seen)),
    )
    return SyntheticScene(reconstruction, photos)


def write_synthetic_scene(root: Path, synthetic: SyntheticScene) -> Scene:
    """A scene folder as `reconstruct` leaves it."""
    scene = Scene.create(root)
    scene.images_dir.mkdir()
    for view, photo in zip(synthetic.reconstruction.views, synthetic.photos):
        write_rgb(scene.images_dir / view.name, photo)
    write_reconstruction(scene.sparse_dir, synthetic.reconstruction)
    return scene


def _looking_in(angle: float, width: int, height: int) -> Camera:
    position = np.array([np.cos(angle), np.sin(angle), 0.3 * np.sin(3 * angle)])
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = [right, np.cross(forward, right), forward]
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ position
    focal_px = 1.1 * width
    return Camera(
        np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]]), width, height, cam_from_world
    )
