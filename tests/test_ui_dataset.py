"""The Dataset step: whose dataset a download is, where a checkpoint goes, and that what it shows is read again."""

from __future__ import annotations

import zipfile
from pathlib import Path

import gradio as gr
import pytest
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
