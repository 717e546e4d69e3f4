"""The splats as the page's 3D viewer wants them: y down, and the first look from where the photos were taken."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.ply import read_splats
from difix3d.formats.splat import write_splat
from difix3d.scene import Scene

# Where Gradio's viewer (gsplat.js) starts: 5 away from the origin, half a radian up and to the right.
_RADIUS, _ALPHA = 5.0, 0.5
_VIEWER_FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def viewer_file(scene: Scene) -> str:
    """Path of a .splat of the scene, in a temporary folder of this process (Gradio serves no others)."""
    status = scene.splats_path.stat()
    name = hashlib.sha256(f"{scene.root}\0{status.st_mtime_ns}".encode()).hexdigest()[:20]
    path = _folder() / f"{name}.splat"
    if not path.is_file():
        write_splat(path, read_splats(scene.splats_path), _viewer_from_world(scene))
    return str(path)


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="difix3d-viewer-"))


def _viewer_from_world(scene: Scene) -> NDArray[np.float64]:
    """[4, 4] similarity that brings the middle camera's azimuth to where the viewer looks from at first."""
    yaw = 0.0
    if (scene.sparse_dir / "cameras.bin").is_file() or (scene.sparse_dir / "cameras.txt").is_file():
        views = read_reconstruction(scene.sparse_dir).views
        if views:
            position = views[len(views) // 2].camera.position
            yaw = np.arctan2(-np.cos(_ALPHA), np.sin(_ALPHA)) - np.arctan2(position[1], position[0])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    similarity = np.eye(4)
    similarity[:3, :3] = _RADIUS * _VIEWER_FROM_Z_UP @ about_z
    return similarity
