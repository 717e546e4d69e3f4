"""A session: frames, who may be a reference, depth where a fixer wants it, and storing a fix once."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import HELDOUT, render_trajectory, write_fitted_scene

from difix3d.errors import ConfigError, FixerError, SceneError
from difix3d.fixers.base import Weightless
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.formats.image import read_rgb
from difix3d.ratings.candidates import candidates_of
from difix3d.scene import Scene, hash_file
from difix3d.stages.fixing import FixSession, fixer_label, store_candidate
from difix3d.types import Frame, Reference


class Recorder(Weightless):
    """A fixer that remembers what it was given, and darkens the frame."""

    name, licence, max_references, needs_depth = "recorder", "CC0-1.0", 2, False

    def __init__(self) -> None:
        self.settings: dict = {"timestep": 7, "strength": 0.5}
        self.given: list[tuple[Frame, list[Reference]]] = []

    def fix(self, frame, references, *, seed=0):
        self.given.append((frame, list(references)))
        return frame.rgb // 2


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("fixing") / "scene")
    render_trajectory(scene)
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def test_only_photos_that_the_fit_saw_are_references(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    names = [ranked.name for ranked in session.ranked(session.frame("walk", 0))]
    assert len(names) == 9 and not set(names) & set(HELDOUT)
    assert list(session.fix(session.frame("walk", 0)).references) == names[:2]
    (_, references) = session.fixer.given[0]
    assert [reference.name for reference in references] == names[:2]
    with pytest.raises(ConfigError, match=r"00004\.png was kept out"):
        session.fix(session.frame("walk", 0), ["00004.png"])
    with pytest.raises(ConfigError, match=r"no photo '\.\./x\.png'"):
        session.fix(session.frame("walk", 0), ["../x.png"])


def test_without_a_split_every_photo_may_be_one(scene: Scene) -> None:
    scene.split_path.unlink()
    assert len(FixSession(scene, Recorder()).allowed()) == 12


def test_references_asked_for_come_in_that_order(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 1)
    fixed = session.fix(frame, ["00007.png", "00001.png", "00007.png", "00002.png"])
    assert fixed.references == ("00007.png", "00001.png")
    assert np.array_equal(fixed.rgb, frame.rgb // 2) and fixed.trust is None and fixed.strength == 1.0
    assert session.fix(frame, []).references == ()
    photo = session.fixer.given[0][1][0]
    assert np.array_equal(photo.rgb, read_rgb(scene.images_dir / "00007.png"))
    assert photo.rgb.shape[:2] == (photo.camera.height, photo.camera.width)


def test_depth_is_the_surfaces_where_it_is_wanted(scene: Scene) -> None:
    plain, wanted = FixSession(scene, Recorder()), FixSession(scene, ReprojectFixer())
    stored = np.load(scene.renders_dir("walk") / "00000_depth.npy")
    assert np.array_equal(plain.frame("walk", 0).depth, stored)
    assert plain.reference("00001.png", plain.frame("walk", 0).camera).depth is None
    frame = wanted.frame("walk", 0)
    assert frame.depth.shape == stored.shape and not np.array_equal(frame.depth, stored)
    reference = wanted.reference("00001.png", frame.camera)
    assert reference.depth is not None and reference.depth.shape == reference.rgb.shape[:2]
    assert wanted.reference("00001.png", frame.camera) is reference  # kept


def test_a_reference_is_brought_to_the_frames_size_but_not_enlarged(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    camera = session.frame("walk", 0).camera
    assert session.reference("00001.png", camera.resized(48)).rgb.shape == (36, 48, 3)
    assert session.reference("00001.png", camera.resized(400)).rgb.shape == (72, 96, 3)


def test_renders_of_ones_own_need_no_fit_unless_depth_is_needed(scene: Scene) -> None:
    for path in (scene.splats_path, scene.split_path):
        path.unlink()
    for path in [*scene.renders_dir("walk").glob("*_depth.npy"), *scene.renders_dir("walk").glob("*_alpha.png")]:
        path.unlink()
    session = FixSession(scene, Recorder())
    fixed = session.fix(session.frame("walk", 0))
    assert fixed.rgb.shape == (72, 96, 3) and fixed.references == (
        "00000.png",
    )  # taken from where the frame is: no other adds to it
    with pytest.raises(FixerError, match="has no depth"):
        needs = FixSession(scene, "reproject")
        needs.fix(needs.frame("walk", 0))
    shutil.rmtree(scene.sparse_dir.parent)  # not even the photos' cameras
    assert FixSession(scene, Recorder()).fix(session.frame("walk", 0)).references == ()


def test_what_is_not_there_is_said(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    with pytest.raises(SceneError, match=r"no trajectory 'orbit'.*There are: walk"):
        session.frame("orbit", 0)
    with pytest.raises(SceneError, match="frame 9"):
        session.frame("walk", 9)
    scene.splats_path.unlink()
    with pytest.raises(SceneError, match=r"splats\.ply"):
        FixSession(scene, Recorder()).render("x", 0, session.frame("walk", 0).camera)


def test_storing_the_same_again_returns_the_same(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 1)
    made = session.fix(frame)
    rgb, used = made.rgb, made.references
    first = store_candidate(scene, frame, rgb, session.fixer, used, strength=1.0)
    assert store_candidate(scene, frame, rgb, session.fixer, used, strength=1.0) == first
    path = scene.inside(first.image_path)
    assert hash_file(path) == first.sha256 and np.array_equal(read_rgb(path), rgb)
    assert (first.timestep, first.frame_index, first.fixer, first.references) == (7, 1, "recorder", used)
    assert first.extra["strength"] == 0.5 and first.extra["licence"] == "CC0-1.0"
    others = {
        store_candidate(scene, frame, rgb, session.fixer, used[:1], strength=1.0).image_path,
        store_candidate(scene, frame, rgb, session.fixer, used, seed=1, strength=1.0).image_path,
        store_candidate(scene, session.frame("walk", 0), rgb, session.fixer, used, strength=1.0).image_path,
    }
    assert len(others | {first.image_path}) == 4
    listed = candidates_of(scene)["walk", 1]
    assert listed[0].fixer == "render" and len(listed) == 4 and first in listed
    json.dumps([candidate.extra for candidate in listed])


def test_two_people_storing_at_once_lose_nothing(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 0)

    def one(number: int):
        made = session.fix(frame, [f"{1 + number % 3:05d}.png"])
        rgb, used = made.rgb, made.references
        return store_candidate(scene, frame, rgb, session.fixer, used, strength=1.0)

    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(one, range(12)))
    assert len({candidate.image_path for candidate in stored}) == 3
    assert len(candidates_of(scene)["walk", 0]) == 4


def test_a_fix_of_a_render_that_changed_is_no_candidate_of_the_new_one(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 0)
    store_candidate(scene, frame, frame.rgb, session.fixer, [], strength=1.0)
    assert len(candidates_of(scene)["walk", 0]) == 2
    (scene.renders_dir("walk") / "00000.png").write_bytes((scene.renders_dir("walk") / "00001.png").read_bytes())
    assert len(candidates_of(scene)["walk", 0]) == 1


def test_a_fix_of_a_render_that_was_made_anew_meanwhile_is_not_kept(scene: Scene) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 0)
    fixed = session.fix(frame)
    (scene.renders_dir("walk") / "00000.png").write_bytes((scene.renders_dir("walk") / "00001.png").read_bytes())
    with pytest.raises(SceneError, match="rendered again while it was being fixed"):
        store_candidate(scene, frame, fixed.rgb, session.fixer, fixed.references, strength=1.0)
    assert [candidate.fixer for candidate in candidates_of(scene)["walk", 0]] == ["render"]


def test_what_other_code_made_is_another_candidate(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FixSession(scene, Recorder())
    frame = session.frame("walk", 0)
    before = store_candidate(scene, frame, frame.rgb, session.fixer, [], strength=1.0)
    monkeypatch.setattr("difix3d.stages.fixing.VERSION", -1)
    assert store_candidate(scene, frame, frame.rgb, session.fixer, [], strength=1.0).image_path != before.image_path


def test_labels_are_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / "my checkpoint (3)"
    folder.mkdir()
    assert fixer_label("reproject") == "reproject"
    assert fixer_label("nvidia/difix_ref") == "nvidia-difix_ref"
    assert fixer_label(str(folder)) == "my-checkpoint-3"
