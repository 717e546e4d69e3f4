"""Scenes, captures and folders of them are told apart, and what is known of their photos is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.atomic import write_json
from difix3d.errors import CaptureError, ConfigError
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import write_rgb
from difix3d.scene import Scene
from difix3d.stages.pairing.sources import captured_photos, find_sources, licence_of, open_scene


def photo(path: Path) -> None:
    write_rgb(path, np.full((80, 80, 3), 90, np.uint8))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A scene, two captures (one beside an info.json), a video, and things that are none."""
    write_synthetic_scene(tmp_path / "ball", make_synthetic_scene(views=4))
    photo(tmp_path / "garden" / "images" / "a.jpg")
    write_json(tmp_path / "garden" / "info.json", {"licence": "CC BY 4.0", "permissive": True, "count": 1})
    photo(tmp_path / "loose" / "b.png")
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "walk.mp4").touch()
    (tmp_path / "notes").mkdir()
    photo(tmp_path / ".trash" / "c.png")
    return tmp_path


def test_each_kind_is_known(place: Path) -> None:
    found = {source.name: source for source in find_sources([str(place)])}
    assert set(found) == {"ball", "garden", "loose", "film"}
    assert found["ball"].capture is None and found["garden"].capture == place / "garden" / "images"
    assert found["loose"].capture == place / "loose" and found["film"].capture == place / "film"
    (walk,) = find_sources([str(place / "film" / "walk.mp4")])
    assert walk.name == "walk" and walk.capture == walk.path
    again = find_sources([str(place / "ball"), str(place), str(place / "ball")])
    assert sorted(source.name for source in again) == sorted(found)


def test_two_of_one_name_have_no_place(place: Path) -> None:
    photo(place / "more" / "garden" / "d.png")
    with pytest.raises(ConfigError, match="would both be called garden"):
        find_sources([str(place), str(place / "more")])
    for nothing in ("notes", "nowhere"):
        with pytest.raises(ConfigError, match="expected a scene"):
            find_sources([str(place / nothing)])


def test_a_capture_becomes_a_scene_or_says_why_not(place: Path) -> None:
    (garden,) = find_sources([str(place / "garden")])
    with pytest.raises(CaptureError, match="Found 1 usable photo"):
        list(open_scene(garden, place / "scenes", 0))
    scene = Scene(place / "scenes" / "garden")
    assert licence_of(garden, scene) == {"licence": "CC BY 4.0", "permissive": True}
    # Given as the scene that was made of it, its licence is still found.
    (made,) = find_sources([str(scene.root)])
    assert licence_of(made, scene)["licence"] == "CC BY 4.0"
    scene.update_info(licence="CC0")
    assert licence_of(garden, scene)["licence"] == "CC0"


def test_photos_bring_what_ingest_knew(place: Path) -> None:
    scene = Scene(place / "ball")
    reconstruction = read_reconstruction(scene.sparse_dir)
    bare = captured_photos(scene, reconstruction)
    assert [one.name for one in bare] == [one.source for one in bare] and bare[0].size == (64, 48)
    row = {"name": bare[0].name, "camera": "Canon", "source": "walk.mp4#17", "width": 128, "height": 96}
    write_json(scene.capture_info_path, {"photos": [row]})
    first, second, *_ = captured_photos(scene, reconstruction)
    assert (first.camera, first.source, first.size) == ("Canon", "walk.mp4", (128, 96))
    assert np.array_equal(first.position, reconstruction.views[0].camera.position) and second.camera == ""
