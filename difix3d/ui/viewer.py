"""What the page's 3D viewer (viewer.js) is given: a small file of the splats, and where to look from at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.derived import derived_file
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.ply import read_splats, splat_count
from difix3d.formats.splat import RECORD_BYTES, write_splat
from difix3d.formats.spz import write_spz
from difix3d.scene import Scene
from difix3d.types import Camera, Splats
from difix3d.ui.media import Media


def viewer_file(scene: Scene) -> Path:
    """previews/splats.splat, written anew when the PLY is another."""
    return _written(scene, "splats.splat", write_splat)


def how_many(scene: Scene) -> str:
    """A sentence where viewer_file does not hold all of the splats; else empty."""
    if not scene.splats_path.is_file():
        return ""
    shown, total = viewer_file(scene).stat().st_size // RECORD_BYTES, splat_count(scene.splats_path)
    return f"{shown:,} of {total:,} splats are shown." if shown < total else ""


def compressed_file(scene: Scene) -> Path:
    """previews/splats.spz, written anew when the PLY is another."""
    return _written(scene, "splats.spz", write_spz)


def _written(scene: Scene, name: str, write: Callable[[Path, Splats], None]) -> Path:
    source = scene.splats_path
    return derived_file(scene.previews_dir / name, source, lambda path: write(path, read_splats(source)))


def viewer_value(scene: Scene, media: Media) -> dict[str, Any] | None:
    """JSON for viewer.js; None without splats. The first look is that of the photo in the middle of the capture."""
    if not scene.splats_path.is_file():
        return None
    camera = _first_look(scene)
    # Where that photo's optical axis passes nearest to the origin, which is what the capture looks at.
    ahead = max(0.2, float(-camera.position @ camera.forward))
    return {
        "url": media.url(viewer_file(scene)),
        "position": camera.position.tolist(),
        "target": (camera.position + ahead * camera.forward).tolist(),
        "width": camera.width,
        "height": camera.height,
        "focal": float(camera.K[1, 1]),
    }


def _first_look(scene: Scene) -> Camera:
    if scene.sparse_dir.is_dir():
        views = read_reconstruction(scene.sparse_dir).views
        if views:
            return views[len(views) // 2].camera
    # Splats of somebody else's: from a little above, at about where our own cameras would be.
    K = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3] = [[0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 1]]
    return Camera(K, 640, 480, cam_from_world)
