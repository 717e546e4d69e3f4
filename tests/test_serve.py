"""`python app.py CAPTURE`: what it begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from difix3d import jobs
from difix3d.errors import CaptureError
from difix3d.ui.serve import arguments, make_studio


def begun(tmp_path: Path, capture: Path):
    database = f"sqlite:///{tmp_path / 'ratings.sqlite'}"
    studio = make_studio(arguments([str(capture), "--scenes", str(tmp_path / "scenes"), "--ratings-db", database]))
    return studio, studio.open_scene(studio.first_scene, "ann")


def test_of_a_folder_the_same_files_are_taken_as_by_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "garden"
    folder.mkdir()
    for name in ("IMG_10.jpg", "IMG_2.JPG"):
        Image.new("RGB", (64, 48)).save(folder / name, "jpeg")
    for name in ("IMG_2.MOV", ".DS_Store", "IMG_2.xmp", "notes.txt"):
        (folder / name).write_bytes(b"beside the photos")
    studio, scene = begun(tmp_path, folder)
    jobs.cancel(scene, jobs.find(scene).id)
    assert [Path(path).name for path in studio.uploads_of(scene)] == ["IMG_2.JPG", "IMG_10.jpg"]


def test_a_folder_without_photos_is_told_and_leaves_no_scene(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no photo")
    with pytest.raises(CaptureError, match="none of them a photo or video"):
        begun(tmp_path, tmp_path / "notes")
    assert not list((tmp_path / "scenes").glob("*/scene.json"))
