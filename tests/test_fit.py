"""The fit stage: which photos it sees, what it leaves on disk, and that stopping it harms nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from colmap_writer import write_reconstruction
from hypothesis import given
from hypothesis import strategies as st
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.errors import ConfigError, FormatError, SceneError
from difix3d.events import Artifact, Done, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, to_uint8
from difix3d.formats.ply import read_splats
from difix3d.geometry import transform_reconstruction
from difix3d.metrics import psnr, ssim
from difix3d.scene import Scene, hash_file
from difix3d.splatting import render_view
from difix3d.splatting.trainer import Trainer, TrainSettings
from difix3d.stages.fit import FitConfig, fit, photo_of, split_names
from difix3d.types import Splats

CONFIG = FitConfig(seconds=1.5, max_splats=1500, holdout=4, renderer="cpu")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_scene(tmp_path_factory.mktemp("fit") / "scene", make_synthetic_scene()).root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


@given(
    names=st.sets(st.text("abc019_.", min_size=1, max_size=6), max_size=60).map(list),
    holdout=st.integers(0, 70),
    train_every=st.integers(1, 9),
)
def test_every_photo_is_on_one_side_of_the_split(names: list[str], holdout: int, train_every: int) -> None:
    train, heldout = split_names(names, holdout, train_every)
    ordered = sorted(names)
    assert sorted(train + heldout) == ordered and train == sorted(train) and heldout == sorted(heldout)
    kept_out = ordered[::holdout] if holdout else []
    others = [name for name in ordered if name not in kept_out]
    assert set(kept_out) <= set(heldout)
    assert train == others[::train_every]
    assert split_names(names[::-1], holdout, train_every) == (train, heldout)


def scores(scene: Scene, splats: Splats) -> tuple[float, float]:
    """Mean PSNR and SSIM of the saved splats over the held-out photos, at the size they were fitted at."""
    pairs = []
    for view in read_reconstruction(scene.sparse_dir).views:
        if view.name in scene.split()["heldout"]:
            drawn = to_uint8(render_view(splats, view.camera, renderer="cpu")[0])
            pairs.append((drawn, read_rgb(scene.images_dir / view.name)))
    return float(np.mean([psnr(*pair) for pair in pairs])), float(np.mean([ssim(*pair) for pair in pairs]))


def test_outputs_figures_and_events(scene: Scene) -> None:
    events = list(fit(scene, CONFIG))
    done = events[-1]
    assert isinstance(done, Done) and set(done.outputs) == {"splats.ply", "split.json"}
    splats, split = read_splats(scene.splats_path), scene.split()
    assert len(splats) == done.figures["splats"] <= 1500
    assert split["heldout"] == ["00000.png", "00004.png", "00008.png"] and len(split["train"]) == 9
    assert (done.figures["psnr"], done.figures["ssim"]) == pytest.approx(scores(scene, splats), abs=0.02)
    assert done.figures["steps"] > 10 and done.figures["seconds"] >= 1.5
    assert (scene.previews_dir / "fit.jpg").is_file()
    assert any(isinstance(event, Artifact) and event.kind == "preview" for event in events)
    fitting = [event for event in events if isinstance(event, Progress) and "step" in event.figures]
    assert fitting and {"seconds", "splats", "step"} <= set(fitting[-1].figures)
    assert json.loads(json.dumps(done.figures)) == done.figures
    assert not [path for path in scene.root.rglob(".*") if "partial" in path.name]


def test_photos_are_held_once_and_left_as_they_are(scene: Scene) -> None:
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    photos = [photo_of(view, 480) for view in reconstruction.views]
    before = [photo.rgb.copy() for photo in photos]
    settings = TrainSettings(seconds=0, max_steps=20, max_splats=500)
    trainer = Trainer(settings, photos[1:], photos[:1], reconstruction.points, reconstruction.colors)
    assert all(np.shares_memory(held.numpy(), photo.rgb) for (_, held), photo in zip(trainer._full, photos[1:]))
    list(trainer.run())
    assert all(np.array_equal(photo.rgb, rgb) for photo, rgb in zip(photos, before))


def test_an_unchanged_fit_is_skipped_and_a_changed_one_is_not(scene: Scene) -> None:
    list(fit(scene, CONFIG))
    before = hash_file(scene.splats_path)
    again = list(fit(scene, CONFIG))
    assert [type(event) for event in again] == [Done] and again[0].skipped
    assert hash_file(scene.splats_path) == before
    photo = scene.images_dir / "00001.png"
    photo.write_bytes((scene.images_dir / "00002.png").read_bytes())
    assert not list(fit(scene, CONFIG))[-1].skipped


def test_closing_leaves_the_previous_splats_whole(scene: Scene) -> None:
    list(fit(scene, CONFIG))
    before = hash_file(scene.splats_path), scene.split(), scene.manifest("fit")
    events = fit(scene, FitConfig(seconds=60, holdout=3, renderer="cpu"))
    for event in events:
        if isinstance(event, Progress) and event.figures.get("step", 0) > 0:
            break
    events.close()
    assert (hash_file(scene.splats_path), scene.split(), scene.manifest("fit")) == before
    assert list(fit(scene, CONFIG))[-1].skipped


def test_a_fit_that_is_good_enough_is_kept_as_a_finished_one(scene: Scene) -> None:
    scene.jobs_dir.mkdir()
    scene.enough_path.touch()  # left by an earlier job: of no effect
    config = FitConfig(seconds=60, holdout=4, renderer="cpu")
    steps = []
    for event in fit(scene, config):
        if isinstance(event, Progress) and event.figures.get("step", 0) > 0:
            steps.append(event.figures["step"])
            if len(steps) == 3:
                scene.enough_path.touch()
    assert isinstance(event, Done) and event.figures["kept_early"]
    assert len(steps) == 3 and steps[-1] <= event.figures["steps"] == scene.manifest("fit")["figures"]["steps"]
    splats = read_splats(scene.splats_path)
    assert len(splats) == event.figures["splats"]
    assert event.figures["psnr"] == pytest.approx(scores(scene, splats)[0], abs=0.02)
    assert list(fit(scene, config))[-1].skipped


def test_a_budget_in_steps_gives_the_same_splats_again(scene: Scene) -> None:
    config = FitConfig(steps=40, max_splats=1500, holdout=4, renderer="cpu")
    hashes = []
    for _ in range(2):
        done = list(fit(scene, config))[-1]
        assert done.figures["steps"] == 40 and not done.figures["kept_early"]
        hashes.append(hash_file(scene.splats_path))
        scene.manifest_path("fit").unlink()
    assert hashes[0] == hashes[1]


def test_without_held_out_photos_there_is_no_score(scene: Scene) -> None:
    done = list(fit(scene, FitConfig(seconds=0.5, holdout=0, renderer="cpu")))[-1]
    assert done.figures["psnr"] is None and done.figures["curve"] == []
    assert scene.split()["heldout"] == [] and len(scene.split()["train"]) == 12


def test_too_few_photos_to_fit_are_said(scene: Scene) -> None:
    with pytest.raises(ConfigError, match=r"leave 2 to fit to; at least 3"):
        list(fit(scene, FitConfig(holdout=2, train_every=3)))
    assert not scene.splats_path.exists()


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [(1.0, 6.4e6, "up to 6,400,0.* from its origin"), (1e-3, 0.0, "nothing nearer than 0.01"), (1.0, 500.0, "")],
)
def test_a_world_that_no_fit_can_be_made_in_is_said(scene: Scene, scale: float, shift: float, said: str) -> None:
    """A COLMAP model in metres from the middle of the earth fits to fog, and so does one in kilometres."""
    moved = np.diag([scale, scale, scale, 1.0])
    moved[0, 3] = shift
    write_reconstruction(scene.sparse_dir, transform_reconstruction(read_reconstruction(scene.sparse_dir), moved))
    if said:
        with pytest.raises(ConfigError, match=f"{said}.*--known-poses"):
            list(fit(scene, CONFIG))
    else:
        assert isinstance(list(fit(scene, CONFIG))[-1], Done)


def test_a_missing_photo_or_model_is_said(scene: Scene) -> None:
    (scene.images_dir / "00003.png").unlink()
    with pytest.raises(FormatError, match="00003"):
        list(fit(scene, CONFIG))
    shutil.rmtree(scene.sparse_dir)
    with pytest.raises(SceneError, match=r"Run: difix3d reconstruct --scene .*or put a COLMAP model into sparse/0"):
        list(fit(scene, CONFIG))
    scene.sparse_dir.mkdir()
    with pytest.raises(FormatError, match="COLMAP"):
        list(fit(scene, CONFIG))


def test_without_cuda_gsplat_is_warned_of_and_the_cpu_fits(scene: Scene) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    events = list(fit(scene, FitConfig(seconds=0.5, holdout=4, renderer="gsplat")))
    warning = next(event for event in events if isinstance(event, Warned))
    assert "CUDA" in warning.message and isinstance(events[-1], Done)
    assert np.isfinite(events[-1].figures["psnr"])
