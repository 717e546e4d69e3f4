"""A model while it grows, to look at: COLMAP writes one every few cameras, and the newest whole one is read."""

from __future__ import annotations

import time
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap

from difix3d.types import Camera, Reconstruction, View

_WRITTEN_S = 0.2
"""A file untouched for so long is complete: COLMAP writes points3D.bin last, in a few milliseconds."""


class Snapshots:
    """The models that a mapper leaves in `folder` as it goes, each shown once."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._shown = ""

    def newest(self) -> Reconstruction | None:
        """The latest model not returned before, if there is one."""
        whole = [
            path.parent
            for path in self.folder.glob("*/points3D.bin")
            if time.time() - path.stat().st_mtime > _WRITTEN_S
        ]
        latest = max(whole, key=lambda path: path.name, default=None)
        if latest is None or latest.name <= self._shown:
            return None
        self._shown = latest.name
        return plain(pycolmap.Reconstruction(latest))


def plain(model: pycolmap.Reconstruction) -> Reconstruction:
    """COLMAP's model as our types, lens distortion left out; views by name, points by id."""
    ids = sorted(model.points3D)
    rows = {point_id: row for row, point_id in enumerate(ids)}
    views = []
    for image in sorted((model.image(image_id) for image_id in model.reg_image_ids()), key=lambda image: image.name):
        camera = model.camera(image.camera_id)
        cam_from_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        seen = np.unique([rows[point.point3D_id] for point in image.points2D if point.has_point3D()]).astype(np.int64)
        pinhole = Camera(camera.calibration_matrix(), camera.width, camera.height, cam_from_world)
        views.append(View(image.name, pinhole, None, seen))
    points = [model.point3D(point_id) for point_id in ids]
    return Reconstruction(
        tuple(views),
        np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
        np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3),
    )
