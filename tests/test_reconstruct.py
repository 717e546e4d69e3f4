"""The reconstruct stage on the courtyard: what it leaves, what it says, and that stopping or failing harms nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from courtyard import TRANSFORMS, disagreement, ingested, photo_paths, true_poses
from PIL import Image

from difix3d.errors import ConfigError, ReconstructionError, SceneError
from difix3d.events import Artifact, Done, Event, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb
from difix3d.geometry import normalising_similarity
from difix3d.scene import Scene, hash_path
from difix3d.sfm.picture import SIZE, draw
from difix3d.stages.reconstruct import ReconstructConfig, reconstruct
from difix3d.types import Reconstruction

STRANGER = "holiday snap (1).jpg"


class Ran(NamedTuple):
    scene: Scene
    events: list[Event]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """18 photos of the courtyard and one of something else, reconstructed."""
    folder = tmp_path_factory.mktemp("reconstruct")
    stranger = folder / STRANGER
    blocks = np.random.default_rng(0).integers(0, 255, (45, 80, 3), dtype=np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(stranger)
    scene = ingested(folder / "scene", [*photo_paths(every=2), stranger])
    return Ran(scene, list(reconstruct(scene, ReconstructConfig())))


@pytest.fixture
def scene(template: Ran, tmp_path: Path) -> Scene:
    shutil.copytree(template.scene.root, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def state(scene: Scene) -> dict[str, str]:
    """What must stay as it was when a run does not come to its end."""
    return scene.hash_inputs(["images", "sparse", "scene.json", "stages", "capture"])


def leftovers(scene: Scene) -> list[str]:
    return [path.name for path in scene.root.rglob(".*")]


@pytest.mark.slow
def test_what_it_leaves(template: Ran) -> None:
    scene, events = template
    done = events[-1]
    assert isinstance(done, Done) and not done.skipped and set(done.outputs) == {"images", "sparse"}
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    figures = done.figures
    assert figures["registered"] == len(reconstruction.views) == 18 and figures["photos"] == 19
    assert figures["points"] == len(reconstruction.points) > 300
    assert 0 < figures["reprojection_px"] < 1 and 5 < figures["median_triangulation_deg"] < 60
    assert figures["left_out"] == [STRANGER]
    assert sorted(path.name for path in scene.images_dir.iterdir()) == [view.name for view in reconstruction.views]
    manifest = scene.manifest("reconstruct")
    assert manifest and manifest["figures"] == figures and "capture" in manifest["inputs"]
    assert not leftovers(scene)


@pytest.mark.slow
def test_the_world_is_normalised_and_upright(template: Ran) -> None:
    scene, events = template
    reconstruction = read_reconstruction(scene.sparse_dir)
    np.testing.assert_allclose(normalising_similarity(reconstruction), np.eye(4), atol=1e-6)
    sources = {row["name"]: row["source"] for row in json.loads(scene.capture_info_path.read_text())["photos"]}
    cameras = {sources[view.name]: view.camera for view in reconstruction.views}
    away, angle_deg, up = disagreement(cameras, true_poses())
    assert away < 0.01 and angle_deg < 0.5, str(events[-1])  # as in transforms.json, up to a similarity
    assert np.degrees(np.arccos(up[2])) < 3  # the courtyard was built with z up
    similarity = scene.world_from_colmap
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    np.testing.assert_allclose(similarity[:3, :3] @ similarity[:3, :3].T, scale**2 * np.eye(3), atol=1e-9 * scale**2)
    assert not np.allclose(similarity, np.eye(4))


@pytest.mark.slow
def test_what_it_says(template: Ran) -> None:
    scene, events = template
    units = [event.unit for event in events if isinstance(event, Progress) and event.unit]
    assert list(dict.fromkeys(units))[:3] == ["photos", "pairs", "cameras"]
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert len(warned) == 1 and "Left out 1 of 19 photos" in warned[0] and STRANGER in warned[0]
    pictures = [event for event in events if isinstance(event, Artifact)]
    assert pictures and all(event.kind == "sparse" for event in pictures)
    assert pictures[-1].caption.startswith("18 cameras, ")
    seconds = events[-1].figures["seconds_match"]
    assert f" {seconds:.1f} s matches" in pictures[-1].caption
    # The final picture shows orange frustums on a dark ground, and points.
    picture = read_rgb(scene.root / pictures[-1].path).astype(int)
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    orange = (picture[..., 0] > 180) & (picture[..., 2] < 110) & (picture[..., 1] > 100)
    bright = picture.min(axis=2) > 90
    assert orange.sum() > 1500 and bright.sum() > 500 and (picture.max(axis=2) < 60).mean() > 0.5


@pytest.mark.slow
def test_nothing_changed_nothing_done(scene: Scene) -> None:
    before = state(scene)
    events = list(reconstruct(scene, ReconstructConfig()))
    assert len(events) == 1 and isinstance(events[0], Done) and events[0].skipped
    assert state(scene) == before


@pytest.mark.slow
@pytest.mark.parametrize("until", ["Finding features", "Matching pairs"])
def test_closing_it_leaves_the_previous_state(scene: Scene, until: str) -> None:
    before = state(scene)
    events = reconstruct(scene, ReconstructConfig(seed=1))
    next(event for event in events if isinstance(event, Progress) and event.message == until)
    events.close()
    assert state(scene) == before and not leftovers(scene)


@pytest.mark.slow
def test_failing_leaves_the_previous_state(scene: Scene, tmp_path: Path) -> None:
    before = state(scene)
    with pytest.raises(ConfigError, match="no such file"):
        list(reconstruct(scene, ReconstructConfig(known_poses=str(tmp_path / "nowhere.json"))))
    poses = json.loads(TRANSFORMS.read_text())
    poses["frames"] = poses["frames"][:1]
    (tmp_path / "transforms.json").write_text(json.dumps(poses))
    with pytest.raises(ReconstructionError, match="The poses name 1 of the 19 photos; at least 4 are needed"):
        list(reconstruct(scene, ReconstructConfig(known_poses=str(tmp_path / "transforms.json"))))
    assert state(scene) == before and not leftovers(scene)


@pytest.mark.slow
def test_known_poses_replace_the_cameras_and_are_watched_for_changes(scene: Scene, tmp_path: Path) -> None:
    before = hash_path(scene.sparse_dir)
    poses = tmp_path / "transforms.json"
    shutil.copy(TRANSFORMS, poses)
    config = ReconstructConfig(known_poses=str(poses))
    done = list(reconstruct(scene, config))[-1]
    assert isinstance(done, Done) and done.figures["mapper"] == "known_poses" and done.figures["registered"] == 18
    assert done.figures["left_out"] == [STRANGER] and hash_path(scene.sparse_dir) != before
    assert list(reconstruct(scene, config))[-1].skipped
    poses.write_text(poses.read_text() + "\n")
    changed = reconstruct(scene, config)
    assert not isinstance(next(changed), Done)
    changed.close()


def test_without_photos_it_says_what_to_run_first(tmp_path: Path) -> None:
    scene = Scene.create(tmp_path / "empty")
    with pytest.raises(SceneError, match="difix3d ingest CAPTURE --scene"):
        list(reconstruct(scene, ReconstructConfig()))


def test_the_picture_takes_what_comes(template: Ran) -> None:
    whole = read_reconstruction(template.scene.sparse_dir)
    nothing = Reconstruction((), np.empty((0, 3)), np.empty((0, 3), np.uint8))
    assert draw(nothing).shape == (SIZE[1], SIZE[0], 3) and draw(nothing).max() < 40
    one = Reconstruction(whole.views[:1], whole.points[:0], whole.colors[:0])
    assert draw(one).max() > 150
    far = np.concatenate([whole.points, [[1e6, 0, 0], [0, 0, -1e6]]])
    strays = Reconstruction(whole.views, far, np.concatenate([whole.colors, np.full((2, 3), 255, np.uint8)]))
    np.testing.assert_array_equal(draw(strays), draw(whole))
