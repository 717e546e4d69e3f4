"""Straightened photos: each by its own lens, with no more warps in memory than are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from difix3d.sfm import undistort as module  # before pycolmap: see there

WIDTH, HEIGHT, FOCAL = 320, 200, 260.0
DISTORTIONS = (0.2, -0.2, 0.1, 0.0, -0.1, 0.3, 0.05)


def one_lens_each(folder: Path) -> pycolmap.Reconstruction:
    """Photos of a slope, red to the right and green downwards, each by a lens of its own."""
    folder.mkdir()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slope = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, 0 * x], axis=-1).astype(np.uint8)
    model = pycolmap.Reconstruction()
    for row, distortion in enumerate(DISTORTIONS, start=1):
        camera = pycolmap.Camera(
            model="SIMPLE_RADIAL",
            width=WIDTH,
            height=HEIGHT,
            params=[FOCAL, WIDTH / 2, HEIGHT / 2, distortion],
            camera_id=row,
        )
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=f"{row}.png", camera_id=row, image_id=row)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
        Image.fromarray(slope).save(folder / image.name)
    return model


@pytest.mark.parametrize("threads", [1, 3])
def test_each_photo_is_straightened_by_its_own_lens(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = one_lens_each(tmp_path / "photos")
    lenses = {image.name: pycolmap.Camera(model.camera(image.camera_id).todict()) for image in model.images.values()}
    made: list[int] = []
    warp = module._warp
    monkeypatch.setattr(module, "_warp", lambda lens, straight: (made.append(lens.camera_id), warp(lens, straight))[1])
    for _ in module.undistort(model, tmp_path / "photos", tmp_path / "images", tmp_path / "sparse", threads):
        pass
    assert sorted(made) == list(range(1, len(DISTORTIONS) + 1)), "once each, though few are kept"
    for image in pycolmap.Reconstruction(tmp_path / "sparse").images.values():
        flat, lens = image.camera, lenses[image.name]
        shown = np.asarray(Image.open(tmp_path / "images" / image.name)).astype(float)
        assert shown.shape[:2] == (flat.height, flat.width)
        for column, row in ((30, 20), (flat.width // 2, 25), (flat.width - 30, flat.height - 20)):
            ray = flat.cam_from_img(np.array([[column + 0.5, row + 0.5]]))
            x, y = lens.img_from_cam(np.column_stack([ray, [1.0]]))[0]
            expected = (x - 0.5) * 255 / WIDTH, (y - 0.5) * 255 / HEIGHT
            assert shown[row, column, :2] == pytest.approx(expected, abs=1.5)
