"""The bundled example: small, complete, and its cameras are those of its photos."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difix3d.formats.clip import Clip
from difix3d.formats.photos import read_photo
from difix3d.scene import Scene
from difix3d.stages.ingest import IngestConfig, ingest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
COURTYARD = EXAMPLES / "courtyard"
PHOTOS, NOVEL = 36, 8


def transforms(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "transforms.json").read_text())


def centres(folder: Path) -> np.ndarray:
    """[N, 3] camera positions."""
    return np.array([frame["transform_matrix"] for frame in transforms(folder)["frames"]])[:, :3, 3]


def test_it_is_small_and_ours() -> None:
    size = sum(path.stat().st_size for path in COURTYARD.rglob("*") if path.is_file())
    assert size <= 6 * 2**20
    assert "CC0" in (COURTYARD / "LICENSE").read_text()


@pytest.mark.parametrize(("folder", "count"), [(COURTYARD, PHOTOS), (COURTYARD / "truth", NOVEL)])
def test_cameras_and_photos_belong_together(folder: Path, count: int) -> None:
    described = transforms(folder)
    files = [folder / frame["file_path"] for frame in described["frames"]]
    photos = sorted((folder / "images" if count == PHOTOS else folder).glob("*.jpg"))
    assert files == photos
    assert len(files) == count
    for path, frame in zip(files, described["frames"]):
        photo = read_photo(path)
        assert photo.rgb.shape == (described["h"], described["w"], 3)
        assert photo.focal_px == pytest.approx(described["fl_x"], rel=1e-3)
        assert 40 < photo.rgb.mean() < 200
        assert photo.rgb.std() > 30
        rotation = np.array(frame["transform_matrix"])[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)


def test_every_camera_looks_at_the_fountain() -> None:
    """OpenGL axes: the view is along -z, so the origin at fountain height lies ahead and in the picture."""
    described = transforms(COURTYARD)
    for frame in described["frames"]:
        world_from_cam = np.array(frame["transform_matrix"])
        x, y, z, _ = np.linalg.inv(world_from_cam) @ (0, 0, 1.2, 1)
        assert z < 0
        assert abs(described["fl_x"] * x / z) < described["w"] / 2
        assert abs(described["fl_y"] * y / z) < described["h"] / 2


def test_novel_cameras_are_nobodys() -> None:
    """Each stands at least 25 cm from every photo; some beyond the arc, some above and below it."""
    walked, novel = centres(COURTYARD), centres(COURTYARD / "truth")
    nearest = np.linalg.norm(novel[:, None] - walked[None], axis=-1).min(axis=1)
    assert (nearest > 0.25).all()
    assert novel[:, 2].max() > walked[:, 2].max() + 0.5
    assert novel[:, 2].min() < walked[:, 2].min() - 0.3


def test_neighbours_of_the_walk_are_close() -> None:
    azimuth = np.degrees(np.unwrap(np.arctan2(*centres(COURTYARD)[:, 1::-1].T)))
    steps = np.abs(np.diff(azimuth))
    assert steps.max() < 20
    assert np.ptp(azimuth) > 185


def test_the_video_shows_the_photos() -> None:
    with Clip(COURTYARD / "courtyard.mp4") as clip:
        pictures = dict(clip.pictures(range(PHOTOS)))
    assert len(pictures) == PHOTOS
    for index in (0, 17, 35):
        photo = read_photo(COURTYARD / "images" / f"{index + 1:05d}.jpg").rgb
        assert np.abs(photo.astype(int) - pictures[index]).mean() < 10


@pytest.mark.parametrize("name", ["images", "courtyard.mp4"])
def test_both_are_captures(tmp_path: Path, name: str) -> None:
    scene = Scene.create(tmp_path / "scene")
    *_, done = ingest(scene, IngestConfig((str(COURTYARD / name),)))
    assert done.figures["photos"] >= PHOTOS - 2
    assert done.figures["focal_priors"] == (PHOTOS if name == "images" else 0)


@pytest.mark.parametrize("name", ["make_courtyard.py", "make_training_scenes.py"])
def test_the_scripts_that_make_scenes_parse_and_are_documented(name: str) -> None:
    script = EXAMPLES / name
    for path in (script, *(EXAMPLES / "courtyard_blender").glob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), path.name
    assert "pip install bpy==5.0.0" in (EXAMPLES / "README.md").read_text()
    assert "pip install bpy==5.0.0" in script.read_text()
    assert name in (EXAMPLES / "README.md").read_text()
