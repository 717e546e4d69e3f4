"""The photos of a scene at the size that is fitted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import SceneError
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.types import Camera, Reconstruction


def file_stem(name: str) -> str:
    """A file name of its own for each photo: "left/00001.jpg" and "right/00001.png" differ."""
    return name.replace("/", "-").replace(".", "-")


def fitted_size(camera: Camera, long_side_px: int) -> Camera:
    """The camera with a longer side of `long_side_px`; never enlarged."""
    return camera.resized(min(long_side_px, max(camera.width, camera.height)))


class Photos:
    """Photos of `reconstruction` with a longer side of at most `long_side_px`, read once; files in `folder`."""

    def __init__(self, reconstruction: Reconstruction, long_side_px: int, folder: Path):
        self._views = {view.name: view for view in reconstruction.views}
        self._long_side_px = long_side_px
        self._folder = folder
        self._read: dict[str, NDArray[np.uint8]] = {}

    def camera(self, name: str) -> Camera:
        return fitted_size(self._views[name].camera, self._long_side_px)

    def rgb(self, name: str) -> NDArray[np.uint8]:
        """[H, W, 3] of the camera's size. SceneError where the photo is missing."""
        if name not in self._read:
            path, camera = self._views[name].image_path, self.camera(name)
            if path is None or not path.is_file():
                raise SceneError(f"photo {name} is not in images/. Reconstruct the scene again.")
            self._read[name] = read_rgb(path, (camera.width, camera.height))
        return self._read[name]

    def file(self, name: str) -> Path:
        """The photo as a PNG, written at first need; of another photo of that name, another file."""
        digest = hashlib.sha256(self.rgb(name).tobytes()).hexdigest()[:8]
        path = self._folder / f"{file_stem(name)}-{digest}.png"
        if not path.is_file():
            write_rgb(path, self.rgb(name))
        return path
