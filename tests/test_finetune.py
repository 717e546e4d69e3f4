"""From an export to a checkpoint that loads, lists, fixes better and says where it is from; stopped or not."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from difix_export import config, tiny_export
from PIL import Image
from safetensors.torch import load_file

from difix3d.cli import main
from difix3d.errors import CheckpointError, ConfigError, FixerError, FormatError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.checkpoint import NVIDIA_LICENCE, list_checkpoints
from difix3d.stages.finetune import FinetuneConfig, finetune

pytestmark = pytest.mark.shared


def stopped(settings: FinetuneConfig, step: int) -> list[Event]:
    """Run to the end of this step's work, and let go."""
    events, seen = finetune(settings), []
    for event in events:
        seen.append(event)
        if isinstance(event, Progress) and event.message == "training" and event.done > step:
            break
    events.close()
    return seen


def weights(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part in ("unet", "vae")
        for name, value in load_file(Path(checkpoint) / part / "diffusion_pytorch_model.safetensors").items()
    }


def largest_difference(one: str | Path, other: str | Path) -> float:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_a_checkpoint_comes_out_that_loads_lists_and_is_better(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    settings = config(goldens, shared, tmp_path, validate_every=5, crop=0, batch_size=2)
    events = list(finetune(settings))
    steps = [event for event in events if isinstance(event, Progress) and event.message == "training"]
    assert [event.figures["step"] for event in steps] == list(range(1, 11))
    assert {"loss", "l2", "lpips", "learning_rate", "gradient_norm"} <= steps[0].figures.keys()
    validations = [event for event in events if isinstance(event, Progress) and event.message == "validating"]
    assert [event.done for event in validations] == [0, 5, 10]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.figures["steps"] == 10 and done.figures["loss_last"] < done.figures["loss_first"]
    judged = done.figures["validation"]
    assert judged["pairs"] == 1 and judged["after"]["psnr"] > judged["before"]["psnr"]
    assert {"psnr", "ssim", "lpips"} == judged["input"].keys() == judged["after"].keys()
    assert list_checkpoints(tmp_path / "checkpoints") == ["mine"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["mine"]
    pictures = sorted(path.name for path in Path(settings.out, "validation").iterdir())
    assert pictures == ["step-000000.png", "step-000005.png", "step-000010.png"]

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


def test_it_says_what_it_was_made_from(goldens, shared, tmp_path) -> None:
    parent = tmp_path / "parent"
    goldens.pipeline("difix_ref").save_pretrained(parent, {"licence": NVIDIA_LICENCE})
    settings = config(goldens, shared, tmp_path, start=str(parent), steps=1)
    facts = {"kind": "photo", "scene_id": "garden", "trajectory": "heldout", "frame_index": 1, "photo": "00004.png"}
    liked = {**facts, "kind": "approved_fix", "trajectory": "orbit", "license": "photos: CC BY 4.0; lite: Apache-2.0"}
    del liked["photo"]
    provenance = {"a": {**facts, "license": "photos: CC BY 4.0"}, "b": liked}
    (tmp_path / "export" / "provenance.json").write_text(json.dumps(provenance))
    list(finetune(settings))
    about = json.loads(Path(settings.out, "difix3d.json").read_text())
    assert about["references"] == 1 and about["data"]["pairs"] == 2 and len(about["data"]["sha256"]) == 64
    assert about["start"]["name"] == str(parent) and about["settings"]["steps"] == 1
    assert {"difix3d", "torch"} <= about["versions"].keys()
    # What may not be used commercially does not become free by training.
    assert about["licence"] == NVIDIA_LICENCE
    assert about["data"]["frames"] == {"garden": ["00004.png", "orbit/1"]}
    card = Path(settings.out, "README.md").read_text()
    for words in (
        NVIDIA_LICENCE,
        "  - photos: CC BY 4.0\n  - photos: CC BY 4.0; lite: Apache-2.0\n",
        about["data"]["sha256"],
        about["start"]["sha256"],
        "2 training pairs",
        "Known limits",
    ):
        assert words in card
    assert f"| this checkpoint | {about['figures']['validation']['after']['psnr']:.4f} |" in card
    assert str(tmp_path) not in card  # paths of this machine tell nobody anything


def test_low_rank_averaged_sparing_training_writes_the_same_layout(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, steps=2, lora_rank=2, ema_decay=0.9, gradient_checkpointing=True)
    list(finetune(settings))
    parent = tmp_path / "parent"
    goldens.pipeline("difix_ref").save_pretrained(parent)
    assert 0 < largest_difference(settings.out, parent) < 0.1
    assert DifixPipeline.from_pretrained(settings.out)


def test_closing_it_leaves_no_checkpoint(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path)
    stopped(settings, 1)
    assert list_checkpoints(tmp_path / "checkpoints") == []
    assert not Path(settings.out).exists()


def test_killed_and_resumed_it_ends_with_the_same_bits(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    flags = {"steps": 16, "save_every": 3, "ema_decay": 0.9, "warmup_steps": 4, "gram_warmup_steps": 8}
    whole = config(goldens, shared, tmp_path, out=str(tmp_path / "whole"), **flags)
    list(finetune(whole))

    killed = config(goldens, shared, tmp_path, **flags)
    words = ["--data", killed.data, "--from", killed.start, "--out", killed.out, "--learning-rate", "2e-3"]
    words += ["--crop", "32", "--tracker", "none", "--lora-rank", "0", "--max-psnr-drop", "99", "--json"]
    words += [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), str(value))]
    command = [sys.executable, "-m", "difix3d", "finetune", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = Path(f"{killed.out}.training", "state", "record.json")
    while not state.is_file() or len(json.loads(state.read_text())["losses"]) < 6:
        assert child.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not Path(killed.out).exists()

    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "going on after step" in resumed.stderr
    assert json.loads(resumed.stdout.splitlines()[-1])["figures"]["steps"] == 16
    assert largest_difference(killed.out, whole.out) == 0.0
    assert not state.parent.parent.exists()


def test_it_goes_on_only_with_what_it_began_with(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, save_every=2)
    stopped(settings, 2)

    def changed(**changes) -> FinetuneConfig:
        return config(goldens, shared, tmp_path, save_every=2, **changes)

    with pytest.raises(ConfigError, match=r"unfinished training, 2 steps long.*learning_rate was 0.002 and is 0.001"):
        list(finetune(changed(learning_rate=1e-3)))
    with pytest.raises(ConfigError, match="pairs_per_step was 1 and is 2"):
        list(finetune(changed(accumulation=2)))
    with pytest.raises(ConfigError, match="start was"):
        list(finetune(changed(start=str(goldens.checkpoint("difix")))))
    with pytest.raises(ConfigError, match="2 steps already"):
        list(finetune(changed(steps=1)))
    picture = tmp_path / "export" / "images" / "ref_0.png"
    content = picture.read_bytes()
    Image.new("RGB", (96, 64)).save(picture)
    with pytest.raises(ConfigError, match="data was"):
        list(finetune(settings))
    picture.write_bytes(content)
    # More steps are no other training, nor is how often it is judged.
    events = list(finetune(changed(steps=4, validate_every=3)))
    assert any(isinstance(event, Progress) and event.message == "going on after step 2" for event in events)

    stopped(settings, 2)
    again = list(finetune(changed(learning_rate=1e-3, restart=True, steps=3)))
    assert [event.done for event in again if isinstance(event, Progress) and event.message == "training"] == [1, 2, 3]


def test_a_damaged_state_is_told(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, save_every=2)
    stopped(settings, 2)
    state = Path(f"{settings.out}.training", "state")
    whole = (state / "adam.safetensors").read_bytes()
    (state / "adam.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"is damaged .*--restart"):
        list(finetune(settings))
    (state / "record.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"no training state .*--restart"):
        list(finetune(settings))


@pytest.mark.parametrize(("limit_kb", "what"), [(40, "the training state"), (600, "the checkpoint")])
def test_a_full_disk_is_told_and_what_was_there_stays(goldens, shared, tmp_path, limit_kb, what) -> None:
    """A limit on the size of files fails writes as a full disk does, half-way."""
    settings = config(goldens, shared, tmp_path, steps=2, save_every=1 if limit_kb < 100 else 0, validation_pairs=0)
    code = f"from difix3d.stages.finetune import *\nlist(finetune({settings!r}))"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1024, limit_kb * 1024))

    ended = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True)
    assert f"CheckpointError: Could not write {what}" in ended.stderr
    assert not Path(settings.out).exists()
    assert not list(tmp_path.rglob("*.partial*"))


def test_without_lpips_weights_it_says_so_and_trains(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("difix3d.stages.finetuning.find_weights", lambda net="vgg": None)
    events = list(finetune(config(goldens, shared, tmp_path, steps=1)))
    assert any(isinstance(event, Warned) and "DIFIX3D_LPIPS_WEIGHTS" in event.message for event in events)
    assert "lpips" not in next(event for event in events if getattr(event, "message", "") == "training").figures


def test_without_test_pairs_it_says_so_and_trains(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, steps=1)
    rows = json.loads(Path(settings.data, "difix.json").read_text())
    Path(settings.data, "difix.json").write_text(json.dumps({"train": rows["train"], "test": {}}))
    events = list(finetune(settings))
    assert any(isinstance(event, Warned) and "test split holds no pairs" in event.message for event in events)
    assert events[-1].figures["validation"] is None
    assert "None: the data had no test pairs" in Path(settings.out, "README.md").read_text()


def test_the_tracker_keeps_a_log_in_the_checkpoint(goldens, shared, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = config(goldens, shared, tmp_path, steps=3, tracker="tensorboard")
    list(finetune(settings))
    log = EventAccumulator(str(Path(settings.out, "runs"))).Reload()
    assert [event.step for event in log.Scalars("loss")] == [1, 2, 3]
    assert [event.step for event in log.Scalars("validation/psnr")] == [0, 3]
    assert log.Tags()["images"]


def test_without_the_tracker_it_says_so_and_trains(goldens, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("difix3d.stages.finetuning.find_spec", lambda name: None)
    events = list(finetune(config(goldens, shared, tmp_path, steps=1, tracker="tensorboard")))
    assert any(isinstance(event, Warned) and "pip install -e '.[train]'" in event.message for event in events)
    assert not Path(tmp_path, "checkpoints", "mine", "runs").exists()


def test_rows_with_and_without_reference_and_of_other_sizes_train_together(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, crop=0, batch_size=2, steps=6)
    images = Path(settings.data, "images")
    Image.open(images / "ref_0.png").resize((48, 32)).save(images / "small.png")
    rows = json.loads(Path(settings.data, "difix.json").read_text())
    rows["train"]["alone"] = {"image": "images/image_0.png", "target_image": "images/ref_0.png"}
    rows["train"]["two"] = {**rows["train"]["a"], "ref_image": ["images/ref_0.png", "images/ref_1.png"], "weight": 0.5}
    rows["train"]["small"] = {"image": "images/small.png", "target_image": "images/small.png"}
    Path(settings.data, "difix.json").write_text(json.dumps(rows))
    done = list(finetune(settings))[-1]
    assert done.figures["steps"] == 6 and done.figures["pairs"] == 5


def test_training_that_diverges_is_told_and_writes_nothing(goldens, shared, tmp_path) -> None:
    with pytest.raises(FixerError, match="try a smaller learning rate"):
        list(finetune(config(goldens, shared, tmp_path, learning_rate=1e18)))
    assert not (tmp_path / "checkpoints" / "mine").exists()


def test_what_does_not_go_together_is_told_before_anything_is_loaded(goldens, shared, tmp_path) -> None:
    with pytest.raises(FormatError, match="difix3d export"):
        next(finetune(config(goldens, shared, tmp_path, data=str(tmp_path / "nowhere"))))
    with pytest.raises(ConfigError, match="multiple of 8"):
        next(finetune(config(goldens, shared, tmp_path, crop=30)))
    with pytest.raises(FormatError, match="too small for crops of 72"):
        next(finetune(config(goldens, shared, tmp_path, crop=72)))
    with pytest.raises(ConfigError, match="no checkpoint: name a new folder"):
        next(finetune(config(goldens, shared, tmp_path, out=str(tmp_path / "export"))))
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        list(finetune(config(goldens, shared, tmp_path, start="nowhere")))


def test_low_rank_updates_are_the_default(goldens, shared, tmp_path) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
    settings = config(
        goldens, shared, tmp_path, steps=1, **{name: defaults[name] for name in ("lora_rank", "learning_rate")}
    )
    list(finetune(settings))
    used = json.loads(Path(settings.out, "difix3d.json").read_text())["settings"]
    assert used["lora_rank"] == 16 and used["learning_rate"] == 1e-4 and used["batch_size"] == 1
    whole = config(goldens, shared, tmp_path, steps=1, learning_rate=0.0, out=str(tmp_path / "whole"))
    list(finetune(whole))
    used = json.loads(Path(whole.out, "difix3d.json").read_text())["settings"]
    assert used["lora_rank"] == 0 and used["learning_rate"] == 2e-5  # as published


def test_on_the_command_line(goldens, shared, tmp_path, capsys) -> None:
    export = tiny_export(shared, tmp_path / "export", references=False)
    flags = ["--data", export, "--from", goldens.checkpoint("difix"), "--out", tmp_path / "x", "--steps", 1, "--json"]
    assert main(["finetune", *map(str, flags)]) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["ok"] and told["stage"] == "finetune" and told["figures"]["steps"] == 1
    assert list_checkpoints(tmp_path) == ["x"]


def test_the_stage_is_light_to_import() -> None:
    code = "import sys, difix3d.stages.finetune; assert not {'torch', 'diffusers', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
