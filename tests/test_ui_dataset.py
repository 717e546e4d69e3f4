"""The Dataset step: whose dataset a download is, where a checkpoint goes, and that what it shows is read again."""

from __future__ import annotations

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

from difix3d.scene import Scene
from difix3d.ui import dataset
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


def test_a_new_scene_does_not_take_over_an_export_that_is_there(studio: Studio) -> None:
    (studio.exports_root / "walk").mkdir(parents=True)
    assert studio.new_scene("walk", ANN["id"], []).id == "walk-2"
