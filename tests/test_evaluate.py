"""The evaluate stage: figures over the held-out photos, a sheet to look at, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import HELDOUT, write_fitted_scene

from difix3d import metrics
from difix3d.atomic import write_json
from difix3d.errors import SceneError
from difix3d.events import Artifact, Done, Warned
from difix3d.fixers import DEFAULT_FIXER
from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.formats.image import read_rgb
from difix3d.scene import Scene
from difix3d.stages import fixing
from difix3d.stages.evaluate import SHEET_PATH, EvaluateConfig, evaluate, fitted_long_side_px


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fitted_scene(tmp_path_factory.mktemp("evaluate") / "scene").root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "lpips", lambda a, b, net="vgg": None)


def test_figures_and_a_sheet(scene: Scene, no_weights: None) -> None:
    events = list(evaluate(scene, EvaluateConfig()))
    done = events[-1]
    assert isinstance(done, Done) and done.outputs == (SHEET_PATH,)
    figures = done.figures
    assert figures["views"] == len(HELDOUT) and figures["fixer"] == DEFAULT_FIXER
    assert set(figures["raw"]) == set(figures["fixed"]) == {"psnr", "ssim", "lpips", "lpips_alex"}
    for side in ("raw", "fixed"):
        assert 5 < figures[side]["psnr"] < 50 and 0 < figures[side]["ssim"] <= 1
    assert figures["raw"] != figures["fixed"]
    assert json.loads(json.dumps(figures)) == figures
    (report,) = [event for event in events if isinstance(event, Artifact)]
    assert report.kind == "report"
    sheet = read_rgb(scene.root / report.path)
    # Rows of 300 pixels, three pictures of 4:3 side by side.
    assert sheet.shape[0] >= 3 * 300 and 3 * 400 <= sheet.shape[1] <= 1700
    assert list(evaluate(scene, EvaluateConfig()))[-1].skipped


def test_the_worst_comes_first(scene: Scene, no_weights: None) -> None:
    black = np.zeros_like(read_rgb(scene.images_dir / HELDOUT[2]))
    from difix3d.formats.image import write_rgb

    write_rgb(scene.images_dir / HELDOUT[2], black + 255)
    list(evaluate(scene, EvaluateConfig()))
    sheet = read_rgb(scene.root / SHEET_PATH)
    assert sheet[:300, :390].mean() > 250
    assert sheet[-306:-6, :390].mean() < 200


def test_missing_lpips_weights_are_said_and_left_out(scene: Scene, no_weights: None) -> None:
    events = list(evaluate(scene, EvaluateConfig()))
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert "DIFIX3D_LPIPS_WEIGHTS" in warning.message
    assert events[-1].figures["raw"]["lpips"] is None and events[-1].figures["fixed"]["lpips_alex"] is None


def test_photos_that_the_fixer_was_trained_on_are_said(scene: Scene, no_weights: None, tmp_path: Path) -> None:
    tuned = tmp_path / "mine"
    tuned.mkdir()
    shutil.copyfile(WEIGHTS, tuned / WEIGHTS.name)
    write_json(tuned / "difix3d.json", {"data": {"frames": {scene.id: [HELDOUT[1], "orbit/0"]}}})
    events = list(evaluate(scene, EvaluateConfig(fixer=str(tuned))))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert told[0].startswith("mine was trained on 1 of 3 kept-out photos")


@pytest.mark.shared
def test_lpips_is_reported_where_its_weights_are(scene: Scene, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    metrics._lpips_net.cache_clear()
    figures = list(evaluate(scene, EvaluateConfig()))[-1].figures
    assert 0 < figures["raw"]["lpips"] < 1.5 and 0 < figures["fixed"]["lpips_alex"] < 1.5


def test_references_are_training_photos_only(scene: Scene, no_weights: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    original = fixing.FixSession.reference

    def recorded(self, name, target):
        used.append(name)
        return original(self, name, target)

    monkeypatch.setattr(fixing.FixSession, "reference", recorded)
    list(evaluate(scene, EvaluateConfig()))
    assert used and not set(used) & set(HELDOUT)


def test_the_size_is_the_fits_unless_told(scene: Scene, no_weights: None) -> None:
    assert fitted_long_side_px(scene) == 640
    write_json(scene.manifest_path("fit"), {"config": {"preset": "quick", "long_side_px": 0}})
    assert fitted_long_side_px(scene) == 480
    write_json(scene.manifest_path("fit"), {"config": {"preset": "quick", "long_side_px": 320}})
    assert fitted_long_side_px(scene) == 320
    assert list(evaluate(scene, EvaluateConfig(long_side_px=48)))[-1].figures["long_side_px"] == 48


def test_nothing_held_out_or_cameras_made_anew_is_said(scene: Scene) -> None:
    write_json(scene.split_path, {"train": ["00001.png"], "heldout": ["gone.png"]})
    with pytest.raises(SceneError, match=r"gone\.png.*Fit again"):
        list(evaluate(scene, EvaluateConfig()))
    scene.split_path.unlink()
    with pytest.raises(SceneError, match="--holdout 8"):
        list(evaluate(scene, EvaluateConfig()))


@pytest.mark.slow
@pytest.mark.shared
def test_photos_never_seen_look_closer_after_the_fix(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real capture fitted to every fourth photo: LPIPS at least 5 % lower, PSNR not more than 0.3 dB."""
    from difix3d.stages.fit import FitConfig, fit
    from difix3d.stages.ingest import IngestConfig, ingest
    from difix3d.stages.reconstruct import ReconstructConfig, reconstruct

    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    metrics._lpips_net.cache_clear()
    scene = Scene.create(tmp_path / "saharov")
    list(ingest(scene, IngestConfig((str(shared / "scenes" / "dev" / "saharov" / "images"),))))
    list(reconstruct(scene, ReconstructConfig()))
    list(fit(scene, FitConfig(train_every=4, seconds=12, renderer="cpu")))
    figures = list(evaluate(scene, EvaluateConfig(long_side_px=320)))[-1].figures
    raw, fixed = figures["raw"], figures["fixed"]
    assert fixed["lpips"] < 0.95 * raw["lpips"]
    assert fixed["psnr"] > raw["psnr"] - 0.3
    assert fixed["ssim"] > raw["ssim"]
