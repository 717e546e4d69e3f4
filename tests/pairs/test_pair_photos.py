"""The photos that pairs point to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.stages.pairing.photos import Photos


def test_another_photo_of_the_same_name_is_another_file(tmp_path: Path) -> None:
    """A photo more in the capture renumbers them all; what was made before still points to what it was made of."""
    scene = write_synthetic_scene(tmp_path / "scene", make_synthetic_scene())
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    name = reconstruction.views[0].name

    def file() -> Path:
        return Photos(reconstruction, 480, tmp_path / "photos").file(name)

    first = file()
    assert file() == first
    before = read_rgb(first)
    write_rgb(scene.images_dir / name, 255 - read_rgb(scene.images_dir / name))
    second = file()
    assert (
        second != first and np.array_equal(read_rgb(second), 255 - before) and np.array_equal(read_rgb(first), before)
    )
