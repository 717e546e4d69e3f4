"""The fix stage: what it leaves on disk, says as it goes, skips, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import HELDOUT, render_trajectory, write_fitted_scene

from difix3d.errors import ConfigError, FixerError, SceneError
from difix3d.events import Artifact, Done, Progress, Warned
from difix3d.fixers import DEFAULT_FIXER
from difix3d.formats.clip import Clip
from difix3d.formats.image import read_rgb
from difix3d.ratings.candidates import candidates_of
from difix3d.scene import Scene, hash_file, hash_path
from difix3d.stages.fix import FixConfig, fix, label_of

FRAMES = 3
CONFIG = FixConfig("walk")
VIDEO = f"walk-{DEFAULT_FIXER}"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("fix") / "scene")
    render_trajectory(scene, frames=FRAMES)
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def test_frames_candidates_and_a_video(scene: Scene) -> None:
    events = list(fix(scene, CONFIG))
    done = events[-1]
    assert isinstance(done, Done)
    assert set(done.outputs) == {f"fixed/walk/{DEFAULT_FIXER}", scene.relative(scene.video_path(VIDEO))}
    assert done.figures["frames"] == FRAMES and done.figures["fixer"] == DEFAULT_FIXER
    assert done.figures["seconds_per_frame"] > 0 and 1 <= done.figures["references"] <= 9
    for index in range(FRAMES):
        render, fixed = candidates_of(scene)["walk", index]
        assert render.fixer == "render" and fixed.fixer == DEFAULT_FIXER
        assert hash_file(scene.inside(fixed.image_path)) == fixed.sha256
        assert 1 <= len(fixed.references) <= 4 and not set(fixed.references) & set(HELDOUT)
        assert fixed.extra["licence"] == "Apache-2.0" and fixed.extra["render_sha256"] == render.sha256
        picture = read_rgb(scene.inside(fixed.image_path))
        assert picture.shape == (72, 96, 3) and not np.array_equal(picture, read_rgb(scene.inside(render.image_path)))
    with Clip(scene.video_path(VIDEO)) as clip:
        pictures = dict(clip.pictures(range(FRAMES)))
    assert len(pictures) == FRAMES and pictures[0].shape == (72, 192, 3)
    raw = read_rgb(scene.renders_dir("walk") / "00000.png").astype(int)
    assert np.abs(pictures[0][:, :96] - raw).mean() < 12
    previews = [event for event in events if isinstance(event, Artifact) and event.kind == "frame"]
    assert previews and all((scene.root / event.path).is_file() for event in previews)
    progress = [event for event in events if isinstance(event, Progress) and event.total]
    assert progress[-1].done == FRAMES and progress[-1].seconds_left == 0
    assert any(isinstance(event, Artifact) and event.kind == "video" for event in events)


def test_it_is_skipped_until_something_changes(scene: Scene) -> None:
    list(fix(scene, CONFIG))
    before = hash_path(scene.fixed_dir("walk", DEFAULT_FIXER))
    (again,) = fix(scene, CONFIG)
    assert again.skipped
    render = scene.renders_dir("walk") / "00001.png"
    render.write_bytes((scene.renders_dir("walk") / "00002.png").read_bytes())
    assert not list(fix(scene, CONFIG))[-1].skipped
    assert hash_path(scene.fixed_dir("walk", DEFAULT_FIXER)) != before


def test_references_make_candidates_of_their_own(scene: Scene) -> None:
    configs = [CONFIG, FixConfig("walk", references="none"), FixConfig("walk", references="00001.png, 00011.png")]
    for config in configs:
        list(fix(scene, config))
    assert len({label_of(config) for config in configs}) == 3
    render, *fixes = candidates_of(scene)["walk", 0]
    assert sorted(len(candidate.references) for candidate in fixes) == [0, 2, len(fixes[0].references)]
    without = next(candidate for candidate in fixes if not candidate.references)
    # With nothing to take detail from, the render is what it gives.
    assert np.array_equal(read_rgb(scene.inside(without.image_path)), read_rgb(scene.inside(render.image_path)))


def test_closing_leaves_the_previous_fixes_whole(scene: Scene) -> None:
    list(fix(scene, CONFIG))
    before = hash_path(scene.fixed_dir("walk", DEFAULT_FIXER)), hash_file(scene.video_path(VIDEO))
    (scene.splats_path).write_bytes(scene.splats_path.read_bytes() + b" ")
    events = fix(scene, CONFIG)
    for event in events:
        if isinstance(event, Progress) and event.done == 1:
            break
    events.close()
    assert (hash_path(scene.fixed_dir("walk", DEFAULT_FIXER)), hash_file(scene.video_path(VIDEO))) == before
    assert scene.manifest("fix", VIDEO) is not None
    assert not [path for path in scene.root.rglob(".*") if "partial" in path.name]


def test_what_cannot_be_fixed_is_said(scene: Scene) -> None:
    with pytest.raises(SceneError, match=r"no trajectory 'orbit'.*render --scene"):
        list(fix(scene, FixConfig("orbit")))
    with pytest.raises(FixerError, match="no fixer 'magic'"):
        list(fix(scene, FixConfig("walk", "magic")))
    with pytest.raises(ConfigError, match="kept out"):
        list(fix(scene, FixConfig("walk", references=HELDOUT[0])))
    (scene.renders_dir("walk") / "00002.png").unlink()
    with pytest.raises(SceneError, match="no render of frame 2"):
        list(fix(scene, CONFIG))
    assert not (scene.root / "fixed").exists() or not list(scene.root.glob(f"fixed/walk/{DEFAULT_FIXER}"))


@pytest.mark.shared
def test_difix_runs_in_the_same_stage(scene: Scene, shared: Path) -> None:
    checkpoint = shared / "golden" / "checkpoint_difix_ref"
    done = list(fix(scene, FixConfig("walk", str(checkpoint))))[-1]
    assert done.figures["fixer"] == "checkpoint_difix_ref"
    fixed = candidates_of(scene)["walk", 0][1]
    assert len(fixed.references) == 1 and fixed.timestep == 199
    assert fixed.extra["prompt"] == "remove degradation"
    assert read_rgb(scene.inside(fixed.image_path)).shape == (72, 96, 3)


@pytest.mark.shared
def test_difix_fixes_renders_that_somebody_brought(scene: Scene, shared: Path) -> None:
    """Pictures and cameras alone: no splats, no depth, no photos."""
    folder = scene.renders_dir("walk")
    for path in (scene.splats_path, scene.split_path, *folder.glob("*_depth.npy"), *folder.glob("*_alpha.png")):
        path.unlink()
    shutil.rmtree(scene.sparse_dir.parent)
    with pytest.raises(FixerError, match="no depth"):
        scene_with_photos_cameras_only(scene)
    events = list(fix(scene, FixConfig("walk", str(shared / "golden" / "checkpoint_difix_ref"))))
    assert any(isinstance(event, Warned) and "without references" in event.message for event in events)
    assert len(json.loads((scene.root / "fixed/walk/checkpoint_difix_ref/candidates.json").read_text())) == FRAMES


def scene_with_photos_cameras_only(scene: Scene) -> None:
    """Asked for on renders without depth, with photos to take from."""
    from colmap_writer import write_reconstruction
    from synthetic_scene import make_synthetic_scene

    write_reconstruction(scene.sparse_dir, make_synthetic_scene(width=96, height=72).reconstruction)
    try:
        list(fix(scene, CONFIG))
    finally:
        shutil.rmtree(scene.sparse_dir.parent)
