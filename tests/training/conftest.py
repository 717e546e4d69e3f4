"""Tiny checkpoints, tiny pairs, and a trainer over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from difix_export import tiny_export

from difix3d.fixers.difix import DifixPipeline
from difix3d.training.dataset import PairsDataset
from difix3d.training.framing import Framing
from difix3d.training.loop import LoopSettings, Trainer
from difix3d.training.pairs import read_pairs


@pytest.fixture
def export(shared, tmp_path) -> Path:
    return tiny_export(shared, tmp_path / "export")


@pytest.fixture
def make_trainer(goldens, export) -> Iterator[Callable[..., Trainer]]:
    """make_trainer(model=, lpips=, precision=, crop=, pairs=, **settings of the loop): on the CPU, with two training
    rows unless others are given."""

    def make(*, model="difix_ref", lpips=None, precision="no", crop=32, pairs=None, **settings) -> Trainer:
        settings = {"steps": 4, "learning_rate": 2e-3, **settings}
        dataset = PairsDataset(
            pairs or read_pairs(export)["train"], Framing(crop_px=crop), seed=settings.get("seed", 0)
        )
        pipeline = DifixPipeline.from_pretrained(goldens.checkpoint(model), keep_lora=True)
        AcceleratorState._reset_state()  # accelerate keeps one precision for a whole process
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        return Trainer(pipeline, dataset, LoopSettings(**settings), accelerator, lpips)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
