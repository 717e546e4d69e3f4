"""Training the fixer lite: it learns, stops and goes on, and its weights are what the fixer loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difix3d.errors import CheckpointError
from difix3d.fixers.lite.fixer import LiteFixer
from difix3d.training.lite_crops import Crops, write_pair
from difix3d.training.lite_loop import LiteSettings, LiteTrainer
from difix3d.training.lite_terms import LiteWeights

pytestmark = pytest.mark.shared  # the loss needs VGG-16's weights
SETTINGS = LiteSettings(steps=4, batch=1, size_px=32)
UNPERCEIVED = LiteWeights(perceptual=0.0)


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    """A grey render, and a photo that is the truth and is hardly believed yet."""
    target = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    frame = np.full((*target.shape[:2], 5), 128, np.uint8)
    photo = np.dstack([target, np.full(target.shape[:2], 255, np.uint8), np.full(target.shape[:2], 32, np.uint8)])
    photo = np.dstack([photo, np.zeros_like(photo)])  # and nothing in patches
    errors = np.full((*target.shape[:2], 3), 128, np.uint8)
    errors[..., 1] = 0  # of the photo as carried exactly
    write_pair(tmp_path / "pair.npy", target, frame, photo[None], errors)
    return Crops([tmp_path / "pair.npy"], SETTINGS.size_px, SETTINGS.batch)


def test_the_loss_falls(shared: Path, crops: Crops) -> None:
    trainer = LiteTrainer(LiteSettings(steps=24, batch=2, size_px=32, loss=UNPERCEIVED), crops, device="cpu")
    updates = list(trainer.run(every=6))
    assert updates[-1].step == 24
    assert updates[-1].parts["l1"] < 0.97 * updates[0].parts["l1"]
    assert updates[-1].parts["choice"] < 1.03 * updates[0].parts["choice"] < 0


def test_stopped_and_gone_on_is_the_same_as_in_one_go(shared: Path, crops: Crops, tmp_path: Path) -> None:
    whole = LiteTrainer(SETTINGS, crops, device="cpu")
    list(whole.run())
    first = LiteTrainer(SETTINGS, crops, device="cpu")
    next(first.run(every=2))
    first.save(tmp_path / "state.pt")
    second = LiteTrainer(SETTINGS, crops, device="cpu")
    second.load(tmp_path / "state.pt")
    assert second.step == 2
    list(second.run())
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(value, second.network.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_the_fixer_loads_what_training_exports(shared: Path, crops: Crops, tmp_path: Path) -> None:
    LiteTrainer(SETTINGS, crops, device="cpu").export(tmp_path / "lite.safetensors")
    LiteFixer(tmp_path / "lite.safetensors").load()
    assert (tmp_path / "lite.safetensors").stat().st_size < 10e6


def test_another_run_is_not_gone_on_with(shared: Path, crops: Crops, tmp_path: Path) -> None:
    LiteTrainer(SETTINGS, crops, device="cpu").save(tmp_path / "state.pt")
    other = LiteTrainer(LiteSettings(steps=5, batch=1, size_px=32), crops, device="cpu")
    with pytest.raises(CheckpointError, match="settings"):
        other.load(tmp_path / "state.pt")
    (tmp_path / "pair.npy").rename(tmp_path / "another.npy")
    others = Crops([tmp_path / "another.npy"], SETTINGS.size_px, SETTINGS.batch)
    with pytest.raises(CheckpointError, match="from 1 pairs, and these are 1 others"):
        LiteTrainer(SETTINGS, others, device="cpu").load(tmp_path / "state.pt")


def test_it_begins_where_other_weights_ended(shared: Path, crops: Crops, tmp_path: Path) -> None:
    first = LiteTrainer(SETTINGS, crops, device="cpu")
    list(first.run())
    first.export(tmp_path / "first.safetensors")
    second = LiteTrainer(SETTINGS, crops, device="cpu", start=tmp_path / "first.safetensors")
    second.export(tmp_path / "second.safetensors")
    assert (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    second.save(tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="start"):  # from chance is another run
        LiteTrainer(SETTINGS, crops, device="cpu").load(tmp_path / "state.pt")
