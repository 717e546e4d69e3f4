"""From an export to a checkpoint that loads, lists and fixes differently."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from difix_export import tiny_export
from difix_goldens import Goldens, opened
from PIL import Image

from difix3d.cli import main
from difix3d.errors import CheckpointError, ConfigError, FormatError
from difix3d.events import Done, Progress, Warned
from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.checkpoint import list_checkpoints
from difix3d.stages.finetune import FinetuneConfig, finetune

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def goldens(shared) -> Iterator[Goldens]:
    with opened(shared) as found:
        yield found


def config(goldens: Goldens, shared, tmp_path, **changes) -> FinetuneConfig:
    if not (tmp_path / "export").exists():
        tiny_export(shared, tmp_path / "export")
    settings = {
        "data": str(tmp_path / "export"),
        "start": str(goldens.checkpoint("difix_ref")),
        "out": str(tmp_path / "checkpoints" / "mine"),
        "steps": 10,
        "learning_rate": 2e-3,
        "crop": 32,
    }
    return FinetuneConfig(**{**settings, **changes})


def test_a_checkpoint_comes_out_that_loads_lists_and_differs(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    settings = config(goldens, shared, tmp_path)
    events = list(finetune(settings))
    steps = [event for event in events if isinstance(event, Progress) and event.figures]
    assert [event.figures["step"] for event in steps] == list(range(1, 11))
    assert {"loss", "l2", "lpips"} <= steps[0].figures.keys()
    done = events[-1]
    assert isinstance(done, Done)
    assert done.figures["steps"] == 10 and done.figures["loss_last"] < done.figures["loss_first"]
    assert list_checkpoints(tmp_path / "checkpoints") == ["mine"]

    about = json.loads((tmp_path / "checkpoints" / "mine" / "difix3d.json").read_text())
    assert about["references"] == 1 and about["data"]["pairs"] == 2 and len(about["data"]["sha256"]) == 64
    assert about["start"]["name"] == settings.start and about["settings"]["steps"] == 10
    assert {"difix3d", "torch"} <= about["versions"].keys()

    image, target = Image.open(tmp_path / "export/images/image_0.png"), Image.open(tmp_path / "export/images/ref_0.png")
    before, after = (
        np.asarray(pipe(image, target).images[0]).astype(float)
        for pipe in (goldens.pipeline("difix_ref"), DifixPipeline.from_pretrained(settings.out))
    )
    error_before, error_after = (np.mean((fixed - np.asarray(target)) ** 2) for fixed in (before, after))
    assert error_after < 0.95 * error_before

    # Training goes on from what it wrote, where the LoRA is merged.
    again = list(finetune(config(goldens, shared, tmp_path, start=settings.out, out=str(tmp_path / "second"), steps=2)))
    assert isinstance(again[-1], Done)
    assert DifixPipeline.from_pretrained(tmp_path / "second")


def test_closing_it_leaves_nothing_behind(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path)
    events = finetune(settings)
    while not next(events).figures:
        pass
    events.close()
    assert list_checkpoints(tmp_path / "checkpoints") == []
    assert not (tmp_path / "checkpoints").exists()


def test_without_lpips_weights_it_says_so_and_trains(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("difix3d.losses.find_weights", lambda net="vgg": None)
    events = list(finetune(config(goldens, shared, tmp_path, steps=1)))
    assert any(isinstance(event, Warned) and "DIFIX3D_LPIPS_WEIGHTS" in event.message for event in events)
    assert "lpips" not in events[-2].figures


def test_what_does_not_go_together_is_told_before_anything_is_loaded(goldens, shared, tmp_path) -> None:
    with pytest.raises(FormatError, match="difix3d export"):
        next(finetune(config(goldens, shared, tmp_path, data=str(tmp_path / "nowhere"))))
    with pytest.raises(ConfigError, match="multiple of 8"):
        next(finetune(config(goldens, shared, tmp_path, crop=30)))
    with pytest.raises(ConfigError, match="no checkpoint: name a new folder"):
        next(finetune(config(goldens, shared, tmp_path, out=str(tmp_path / "export"))))
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        list(finetune(config(goldens, shared, tmp_path, start="nowhere")))


def test_on_the_command_line(goldens, shared, tmp_path, capsys) -> None:
    export = tiny_export(shared, tmp_path / "export")
    flags = ["--data", export, "--from", goldens.checkpoint("difix"), "--out", tmp_path / "x", "--steps", 1, "--json"]
    rows = json.loads((export / "difix.json").read_text())
    for row in rows["train"].values():
        del row["ref_image"]
    (export / "difix.json").write_text(json.dumps(rows))
    assert main(["finetune", *map(str, flags)]) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["ok"] and told["stage"] == "finetune" and told["figures"]["steps"] == 1
    assert list_checkpoints(tmp_path) == ["x"]


def test_the_stage_is_light_to_import() -> None:
    import subprocess

    code = "import sys, difix3d.stages.finetune; assert not {'torch', 'diffusers', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
