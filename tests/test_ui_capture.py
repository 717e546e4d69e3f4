"""What Start, Try the example, Go on from here, and Render and fix it do to scenes and jobs."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from difix3d import jobs
from difix3d.jobs import Job, Step
from difix3d.machine import process_start
from difix3d.scene import Scene
from difix3d.ui import capture
from difix3d.ui import scene as scene_step
from difix3d.ui.shared import Shared
from difix3d.ui.studio import Studio, owner_key

ANN = {"id": "ann", "scene": ""}


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (64, 48)).save(tmp_path / "one.jpg")
    return str(tmp_path / "one.jpg")


def page(tmp_path: Path, public: bool = False, fixer: str = "") -> Shared:
    """The handlers need nothing of the page but its studio."""
    studio = Studio(tmp_path / "scenes", f"sqlite:///{tmp_path / 'ratings.sqlite'}", fixer, public)
    return Shared(studio, *[None] * 4)  # type: ignore[arg-type]


def folders(shared: Shared) -> list[str]:
    return sorted(path.name for path in shared.studio.scenes_root.iterdir() if path.is_dir())


def with_running_job(shared: Shared) -> Scene:
    """Ann's scene, with a job whose process is this one."""
    scene = Scene.create(shared.studio.scenes_root / "busy")
    scene.update_info(owner=owner_key("ann"))
    scene.jobs_dir.mkdir()
    created = process_start(os.getpid())
    jobs._save(scene, Job("one", (Step("ingest", {}),), jobs.RUNNING, 1.0, "", os.getpid(), created))
    return scene


def test_start_makes_a_scene_and_its_job(tmp_path: Path, photo: str) -> None:
    shared = page(tmp_path, public=True)
    visitor, scene_id, *_ = capture._starter(shared)(ANN, [photo], "quick", "walk", [], 0)
    scene = shared.studio.open_scene(scene_id, "ann")
    job = jobs.cancel(scene, jobs.find(scene).id)
    assert visitor["scene"] == scene_id and scene.info["name"] == "walk"
    assert [step.stage for step in job.steps][:3] == ["ingest", "reconstruct", "fit"]


@pytest.mark.parametrize("stem", ["walk ", "n" * 150, "n" * 59 + "  and more", " "])
def test_a_scene_is_named_so_that_its_owner_can_write_the_name_to_delete_it(tmp_path: Path, stem: str) -> None:
    shared = page(tmp_path, public=True)
    (tmp_path / f"{stem}.mp4").write_bytes(b"no video")
    visitor, scene_id, *_ = capture._starter(shared)(ANN, [str(tmp_path / f"{stem}.mp4")], "quick", "", [], 0)
    scene = shared.studio.open_scene(scene_id, "ann")
    jobs.cancel(scene, jobs.find(scene).id)
    name = scene.info["name"]
    assert 0 < len(name) <= 60 and name == name.strip()
    scene_step._deleter(shared)(visitor, scene_id, f" {name} ")
    assert not scene.root.exists()


def test_a_name_of_the_command_line_is_longer_than_can_be_written(tmp_path: Path) -> None:
    shared = page(tmp_path)
    scene = Scene.create(shared.studio.scenes_root / "long", name="n" * 200 + " ")
    scene_step._deleter(shared)(ANN, "long", "n" * 80)
    assert not scene.root.exists()


def test_start_while_ones_own_job_runs_leaves_no_scene(tmp_path: Path, photo: str) -> None:
    shared = page(tmp_path, public=True)
    with_running_job(shared)
    for _ in range(2):
        with pytest.raises(gr.Error, match="still running"):
            capture._starter(shared)(ANN, [photo], "quick", "walk", [], 8)
        with pytest.raises(gr.Error, match="still running"):
            capture._example_starter(shared)(ANN, "quick", [], 8)
    assert folders(shared) == ["busy"]


@pytest.mark.parametrize(
    ("holdout", "fixer", "words"), [(1, "", "leave none to fit to"), (8, "lit", "There is no fixer")]
)
def test_a_start_that_is_refused_takes_its_scene_back(
    tmp_path: Path, photo: str, holdout: int, fixer: str, words: str
) -> None:
    shared = page(tmp_path, fixer=fixer)
    with pytest.raises(gr.Error, match=words):
        capture._starter(shared)(ANN, [photo], "quick", "walk", [], holdout)
    with pytest.raises(gr.Error, match=words):
        capture._example_starter(shared)(ANN, "quick", [], holdout)
    assert folders(shared) == [] and Path(photo).is_file()


def test_go_on_takes_the_steps_that_make_the_scene_whatever_ran_since(tmp_path: Path, photo: str) -> None:
    shared = page(tmp_path)
    scene = shared.studio.new_scene("walk", "ann", [photo])
    with pytest.raises(gr.Error, match="Nothing in this scene waits"):
        capture._resumer(shared)(ANN, scene.id)
    chain = (Step("ingest", {"capture": [photo]}), Step("reconstruct"), Step("fit"))
    scene.jobs_dir.mkdir()
    jobs._save(scene, Job("one", chain, jobs.CANCELLED, 1.0))
    jobs._save(scene, Job("two", (Step("render"), Step("fix")), jobs.FAILED, 2.0))
    jobs._save(scene, Job("three", (Step("export", {"out": "x"}),), jobs.DONE, 3.0))
    capture._resumer(shared)(ANN, scene.id)
    job = jobs.cancel(scene, jobs.find(scene).id)
    assert job.id not in ("one", "two", "three") and job.steps == chain


def test_a_path_is_not_rendered_before_there_are_splats(tmp_path: Path, photo: str) -> None:
    shared = page(tmp_path)
    scene = shared.studio.new_scene("walk", "ann", [photo])
    with pytest.raises(gr.Error, match="no splats to render yet"):
        scene_step._renderer(shared)(ANN, scene.id, "orbit", "lite")
    assert jobs.find(scene) is None
