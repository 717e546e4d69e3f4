"""Two processes on gloo, started as a user starts them, train what one process with twice the batch trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.shared

# The launcher's own flag for CPUs needs MPI; this starts the processes as on GPUs, and accelerate takes gloo.
_LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
           "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
           "-m", "difix3d.training"]  # fmt: skip


def run(command: list[str], flags: dict[str, object]) -> subprocess.CompletedProcess[str]:
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command, *words, "--json"], env=environment, capture_output=True, text=True, timeout=240
    )


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part in ("unet", "vae")
        for name, value in load_file(checkpoint / part / "diffusion_pytorch_model.safetensors").items()
    }


def test_two_processes_equal_one(goldens, export, tmp_path, monkeypatch, shared) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    parent = goldens.checkpoint("difix_ref")
    flags = {"data": export, "from": parent, "steps": 5, "crop": 32, "gram-warmup-steps": 2, "ema-decay": 0.5,
             "lora-rank": 0, "validation-pairs": 2, "tracker": "none"}  # fmt: skip
    two = run(_LAUNCH, {**flags, "save-every": 3, "out": tmp_path / "two"})
    one = run(["-m", "difix3d", "finetune"], {**flags, "accumulation": 2, "out": tmp_path / "one"})
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr

    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    figures = [json.loads(told.stdout.splitlines()[-1])["figures"] for told in (one, two)]
    assert figures[0]["validation"] == figures[1]["validation"]
    assert figures[0]["loss_last"] == pytest.approx(figures[1]["loss_last"], rel=1e-6)
    assert two.stdout.count('"ok": true') == 1 and two.stderr.count("done in") == 1  # one of them tells
    assert not (tmp_path / "two.training").exists()


def test_two_processes_equal_one_with_twice_the_batch(goldens, export, tmp_path) -> None:
    # The squared error alone: LPIPS has slopes so steep, where activations almost vanish, that the last bit of a larger
    # batch's convolutions shows in them.
    parent = goldens.checkpoint("difix_ref")
    flags = {"data": export, "from": parent, "steps": 5, "crop": 32, "lpips-weight": 0, "gram-weight": 0,
             "accumulation": 2, "lora-rank": 0, "validation-pairs": 0, "tracker": "none"}  # fmt: skip
    two = run(_LAUNCH, {**flags, "batch-size": 1, "out": tmp_path / "two"})
    one = run(["-m", "difix3d", "finetune"], {**flags, "batch-size": 2, "out": tmp_path / "one"})
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    ours, theirs = (torch.cat([*map(torch.flatten, weights(tmp_path / out).values())]) for out in ("two", "one"))
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()


def test_what_is_wrong_is_told_once(export, tmp_path) -> None:
    (export / "images" / "image_1.png").unlink()
    told = run(_LAUNCH, {"data": export, "from": "nowhere", "out": tmp_path / "x"})
    assert told.returncode != 0
    assert told.stderr.count("image 'images/image_1.png' is no file") == 1 and "difix3d/errors" not in told.stderr
