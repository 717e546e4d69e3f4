"""The synthetic scene with splats and a split, as `fit` leaves it, without fitting: the splats that took the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.atomic import write_json
from difix3d.formats.camera_path import write_camera_path
from difix3d.formats.frames import write_frame
from difix3d.formats.image import to_uint8
from difix3d.formats.ply import write_splats
from difix3d.scene import Scene
from difix3d.splatting import render_view
from difix3d.splatting.initialise import splats_from_points
from difix3d.types import Frame, Trajectory

HELDOUT = ("00000.png", "00004.png", "00008.png")


def write_fitted_scene(root: Path, seed: int = 0) -> Scene:
    """Twelve photos around a ball, three of them held out; splats made of the sparse points alone, so a poor fit.
    seed: of another ball."""
    synthetic = make_synthetic_scene(width=96, height=72, seed=seed)
    scene = write_synthetic_scene(root, synthetic)
    reconstruction = synthetic.reconstruction
    cameras = [view.camera for view in reconstruction.views]
    splats = splats_from_points(reconstruction.points, reconstruction.colors, cameras, 0, 400, 0)
    solid = np.full(len(splats), 2.0, np.float32)
    write_splats(scene.splats_path, type(splats)(splats.means, splats.quats, splats.log_scales, solid, splats.sh))
    names = [view.name for view in reconstruction.views]
    write_json(scene.split_path, {"train": [name for name in names if name not in HELDOUT], "heldout": list(HELDOUT)})
    return scene


def render_trajectory(scene: Scene, name: str = "walk", frames: int = 3) -> Trajectory:
    """What the stage `render` leaves of a trajectory, at cameras of held-out photos."""
    from difix3d.formats.colmap import read_reconstruction
    from difix3d.formats.ply import read_splats

    splats, views = read_splats(scene.splats_path), read_reconstruction(scene.sparse_dir).views
    cameras = tuple(view.camera for view in views if view.name in HELDOUT)[:frames]
    trajectory = Trajectory(name, cameras, 8.0)
    scene.renders_dir(name).mkdir(parents=True)
    for index, camera in enumerate(cameras):
        rgb, alpha, depth = render_view(splats, camera, renderer="cpu")
        write_frame(scene.renders_dir(name), Frame(name, index, camera, to_uint8(rgb), alpha, depth))
    write_camera_path(scene.trajectory_path(name), trajectory)
    return trajectory
