"""The Dataset step: whose dataset a download is, where a checkpoint goes, and that what it shows is read again."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rated_capture import exported
from rated_scene import make_scene, vote_on
from safetensors.numpy import save_file

from difix3d import jobs
from difix3d.errors import ConfigError
from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.machine import process_start
from difix3d.ratings.campaigns import Match, enter
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import canonical_pair, item_key
from difix3d.scene import Scene
from difix3d.ui import dataset
from difix3d.ui.page import build
from difix3d.ui.rate import HERE
from difix3d.ui.shared import Shared
from difix3d.ui.studio import Studio

ANN = {"id": "ann-who-has-a-long-id", "scene": ""}


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "scenes", f"sqlite:///{tmp_path / 'ratings.sqlite'}")


def shared_by(studio: Studio) -> Shared:
    with gr.Blocks():
        return Shared(studio, gr.BrowserState({}), gr.State(""), gr.State(""), gr.State({}))


def voted_and_exported(studio: Studio, name: str, seed: int) -> Scene:
    scene = make_scene(studio.scenes_root, name, seed=seed)
    vote_on(studio.store, scene, "fix", "ann")
    url = studio.store.engine.url.render_as_string(hide_password=False)
    exported(scene.root, url, studio.exports_root / scene.id)
    return scene


def test_names_that_differ_after_a_dot_have_downloads_of_their_own(studio: Studio) -> None:
    names = ("photos-30-Nov-14.35", "photos-30-Nov-14.36")
    scenes = [voted_and_exported(studio, name, seed) for seed, name in enumerate(names)]
    told = dataset._reader(shared_by(studio))
    for scene in scenes:
        assert "Download (.zip)" in told(ANN, scene.id, HERE)[1]
    for scene in scenes:
        with zipfile.ZipFile(studio.exports_root / f"{scene.id}.zip") as archive:
            said = archive.read("ratings.jsonl").decode()
        assert [name for name in names if name in said] == [scene.id]


def test_a_deleted_scene_takes_its_dataset_along_and_leaves_its_name_to_its_votes(studio: Studio) -> None:
    scene, other = (voted_and_exported(studio, name, seed) for seed, name in enumerate(("walk", "walk.2")))
    app = FastAPI()
    studio.media.mount(app)
    shown = dataset._reader(shared_by(studio))(ANN, scene.id, HERE)[1]
    address = re.findall("href='([^']+)'", shown)[0]
    assert TestClient(app).get(address).status_code == 200

    studio.delete_scene(scene, ANN["id"])
    assert [path.name for path in studio.exports_root.iterdir()] == [other.id]
    assert TestClient(app).get(address).status_code == 404

    again = Studio(studio.scenes_root, studio.store.engine.url.render_as_string(), public=False)
    new = again.new_scene("walk", ANN["id"], [])
    assert new.id == "walk-2" and new.info["name"] == "walk"
    told, export = dataset._reader(shared_by(again))(ANN, new.id, HERE)
    assert "No votes yet" in told and not export
    assert again.store.counts("walk")["ratings"] == 1


def test_a_deletion_that_was_stopped_is_done_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = voted_and_exported(studio, "walk", 0)
    dataset._zipped(studio.exports_root / scene.id)

    def fails(*_: object) -> None:
        raise OSError("the disk is away")

    for step in ((Path, "unlink"), (shutil, "rmtree")):
        with monkeypatch.context() as patched:
            patched.setattr(*step, fails)
            with pytest.raises(OSError, match="away"):
                studio.delete_scene(scene, ANN["id"])
        assert dataset._reader(shared_by(studio))(ANN, scene.id, HERE)[1] == "", "not half a dataset"
    studio.delete_scene(scene, ANN["id"])
    assert not list(studio.exports_root.iterdir()) and studio.scenes_of(ANN["id"]) == []


def test_how_often_each_is_preferred_counts_pairs_and_not_votes(studio: Studio) -> None:
    scene = make_scene(studio.scenes_root, "walk")
    for rater in ("ann", "bob", "cid"):
        vote_on(studio.store, scene, "fix", rater)
    shown = dataset.counts_html(studio, scene.id)
    assert "100% of 1 pair<" in shown and "Each pair counts once" in shown
    studio.store.withdraw("bob")
    vote_on(studio.store, scene, "render", "ann", 1)
    assert "50% of 2 pairs<" in dataset.counts_html(studio, scene.id)


def test_a_new_scene_does_not_take_over_an_export_that_is_there(studio: Studio) -> None:
    (studio.exports_root / "walk").mkdir(parents=True)
    assert studio.new_scene("walk", ANN["id"], []).id == "walk-2"


def checkpoint(studio: Studio, name: str) -> Path:
    folder = studio.checkpoints_root / name
    folder.mkdir(parents=True)
    save_file({}, folder / WEIGHTS.name)
    return folder


def test_a_finished_checkpoint_is_not_trained_over_and_an_unfinished_one_is_gone_on_with(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = voted_and_exported(studio, "walk", 0)
    shared = shared_by(studio)
    train, offer = dataset._trainer(shared), dataset._starts(shared)
    started: list[dict] = []
    monkeypatch.setattr(jobs, "start", lambda scene, steps, environment: started.append(steps[0].config))

    (studio.checkpoints_root / "mine.training" / "state").mkdir(parents=True)  # was stopped
    assert offer("lite", "mine")[2] == gr.skip()
    train(ANN, scene.id, HERE, "lite", 30, "mine")
    mine = checkpoint(studio, "mine")
    assert offer("lite", "mine")[2] == "mine-2" and offer("lite", "my own")[2] == gr.skip()
    for parent in ("lite", str(mine)):
        with pytest.raises(gr.Error, match=r"called mine already.* mine-2 is free"):
            train(ANN, scene.id, HERE, parent, 30, "mine")
    train(ANN, scene.id, HERE, str(mine), 30, "")
    checkpoint(studio, "mine-2")
    assert offer("lite", "mine-2")[2] == "mine-3" and studio.free_name("x" * 60) == "x" * 60
    assert [Path(each["out"]).name for each in started] == ["mine", "mine-2"]
    # A stopped job that is started again, after another one took the name.
    with pytest.raises(ConfigError, match="mine-3 is free"):
        studio.start_job(scene, ANN["id"], [jobs.Step("finetune", started[0])])


def test_two_scenes_do_not_train_one_checkpoint_at_once(studio: Studio) -> None:
    one, other = (make_scene(studio.scenes_root, name) for name in ("one", "other"))
    step = jobs.Step("finetune", {"data": "there", "start": "lite", "out": str(studio.checkpoints_root / "mine")})
    one.jobs_dir.mkdir()
    created = process_start(os.getpid())
    jobs._save(one, jobs.Job("first", (step,), jobs.RUNNING, 1.0, "", os.getpid(), created))
    with pytest.raises(ConfigError, match="mine is being trained in 'one'"):
        studio.start_job(other, ANN["id"], [step])


def test_weights_that_were_trained_again_are_loaded_again(studio: Studio) -> None:
    folder = checkpoint(studio, "mine")
    scenes = [make_scene(studio.scenes_root, name) for name in ("one", "other")]
    first, second = (studio.session(scene, str(folder)) for scene in scenes)
    chooser = studio.chooser(scenes[0], str(folder))
    assert studio.session(scenes[0], str(folder)) is first and second.fixer is first.fixer
    os.utime(folder / WEIGHTS.name, ns=(2**60, 2**60))
    again = studio.session(scenes[0], str(folder))
    assert again is not first and again.fixer is not first.fixer
    assert studio.session(scenes[1], str(folder)).fixer is again.fixer
    assert studio.chooser(scenes[0], str(folder)) is not chooser


def test_votes_show_when_the_tab_is_opened(studio: Studio) -> None:
    scene = make_scene(studio.scenes_root, "one")
    page = build(studio)
    (tab,) = [block for block in page.blocks.values() if isinstance(block, gr.Tab) and block.label == "Dataset"]

    def opened() -> str:
        """What the page's own handlers of that moment show."""
        handlers = [each for each in page.fns.values() if (tab._id, "select") in each.targets]
        return " ".join(str(each.fn(*(ANN, scene.id, HERE)[: len(each.inputs)])) for each in handlers)

    assert "No votes yet" in opened()
    render, fix = candidates_of(scene)["orbit", 1][:2]
    a, b = canonical_pair(render, fix)
    enter(studio.store, [Match(item_key(a, b), a, b, "a")])
    vote_on(studio.store, scene, "fix", "ann")
    assert "No votes yet" not in (told := opened()) and "No votes on new against old yet" in told
    vote_on(studio.store, scene, "fix", "ann", index=1)
    assert "New against old" in opened()


def test_nothing_is_read_before_the_step_was_looked_at(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page that opens a scene would read all its votes."""
    scene = voted_and_exported(studio, "one", 0)
    page = build(studio)
    (looked,) = [
        each.outputs[0]
        for each in page.fns.values()
        if len(each.outputs) == 1
        and isinstance(each.outputs[0], gr.State)
        and each.outputs[0].value is False
        and any(target[1] == "select" for target in each.targets)
        and any(block.label == "Dataset" for block in page.blocks.values() if block._id == each.targets[0][0])
    ]
    reading = [each for each in page.fns.values() if looked in each.inputs]
    assert len(reading) == 2, "votes, and what came of campaigns"
    counted = []
    counts = studio.store.counts
    monkeypatch.setattr(studio.store, "counts", lambda *given: counted.append(given) or counts(*given))
    for each in reading:
        each.fn(False, ANN, scene.id, HERE)
    assert not counted
    assert "votes" in " ".join(str(each.fn(True, ANN, scene.id, HERE)) for each in reading) and counted
