"""What is made of one file: small pictures of photos, and what the viewer is given of the splats."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import write_fitted_scene

from difix3d.derived import derived_file
from difix3d.errors import SceneError
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.scene import Scene
from difix3d.ui.media import Media
from difix3d.ui.thumbnails import thumbnail_of, thumbnail_url
from difix3d.ui.viewer import compressed_file, how_many, viewer_file


def test_it_is_made_once_and_anew_of_another_source_whatever_its_age(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "folder" / "made"
    made = []

    def write(target: Path) -> None:
        made.append(source.read_text())
        target.write_text(made[-1])

    source.write_text("one")
    for _ in range(2):
        assert derived_file(path, source, write) == path
    source.write_text("two")
    os.utime(source, (1.0, 1.0))  # moved in from elsewhere
    for _ in range(2):
        derived_file(path, source, write)
    assert made == ["one", "two"]
    path.unlink()
    derived_file(path, source, write)
    assert made == ["one", "two", "two"]
    source.unlink()
    with pytest.raises(FileNotFoundError):
        derived_file(path, source, write)


def test_the_viewer_shows_splats_that_were_put_there_from_elsewhere(tmp_path: Path) -> None:
    first, second = write_fitted_scene(tmp_path / "first"), write_fitted_scene(tmp_path / "second", seed=1)
    os.utime(second.splats_path, (1.0, 1.0))
    before = [path.read_bytes() for path in (viewer_file(first), compressed_file(first))]
    second.splats_path.rename(first.splats_path)
    after = [path.read_bytes() for path in (viewer_file(first), compressed_file(first))]
    assert all(one != other for one, other in zip(before, after)) and how_many(first) == ""


@pytest.fixture
def photos(tmp_path: Path) -> Scene:
    scene = Scene.create(tmp_path / "scene")
    for shade, name in enumerate(("a.jpg", "a.png", "front/a.jpg", "rear/a.jpg"), start=1):
        (scene.images_dir / name).parent.mkdir(parents=True, exist_ok=True)
        write_rgb(scene.images_dir / name, np.full((300, 400, 3), 50 * shade, np.uint8))
    return scene


def test_each_photo_has_its_own_small_picture(photos: Scene) -> None:
    for shade, name in enumerate(("a.jpg", "a.png", "front/a.jpg", "rear/a.jpg"), start=1):
        small = read_rgb(thumbnail_of(photos, name))
        assert small.shape[1] < 400 and abs(float(small.mean()) - 50 * shade) < 2


@pytest.mark.parametrize("name", ["b.jpg", "", ".", "front", "../images/a.jpg", "front/../a.jpg", "/etc/passwd"])
def test_what_is_no_photo_of_the_scene_has_none(photos: Scene, name: str) -> None:
    with pytest.raises(SceneError, match="There is no photo"):
        thumbnail_of(photos, name)
    assert thumbnail_url(Media(), photos, name) == ""


def test_a_photo_that_cannot_be_read_or_a_full_disk_leaves_the_address_empty(photos: Scene) -> None:
    (photos.images_dir / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    assert thumbnail_url(Media(), photos, "broken.jpg") == ""
    shutil.rmtree(photos.previews_dir / "photos")
    (photos.previews_dir / "photos").write_text("in the way")
    assert thumbnail_url(Media(), photos, "a.jpg") == ""
