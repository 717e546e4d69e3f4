"""What Difix begins to be fine-tuned from: folders, the Hub, a pickle; and which targets it makes anyway."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from difix_export import config, tiny_export
from hub_stand_in import COMMIT, StandInHub, environment

from difix3d.errors import CheckpointError
from difix3d.events import Warned
from difix3d.fixers import load_fixer
from difix3d.fixers.difix.checkpoint import NVIDIA_LICENCE
from difix3d.fixers.difix.fixer import makes_the_same
from difix3d.fixers.difix.hub import PINNED_REVISIONS
from difix3d.stages.finetune import finetune

pytestmark = pytest.mark.shared


def test_the_published_trainings_pickle_is_no_start_before_it_says_what_it_looks_at(
    goldens, shared, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "model_1001.pkl").write_bytes(b"not read")
    with pytest.raises(CheckpointError, match=r"model_1001\.pkl does not say .* references=1"):
        list(finetune(config(goldens, shared, tmp_path, start="runs/model_1001.pkl")))


def test_fixes_that_the_parent_made_are_no_targets_for_it(goldens, shared, tmp_path) -> None:
    settings = config(goldens, shared, tmp_path, steps=1)
    liked = {"kind": "approved_fix", "settings": {"checkpoint": "checkpoint_difix_ref", "timestep": 199}}
    other = {"kind": "approved_fix", "settings": {"checkpoint": "checkpoint_difix_ref", "timestep": 300}}
    Path(settings.data, "provenance.json").write_text(json.dumps({"a": liked, "b": other}))
    events = list(finetune(settings))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any(message.startswith("1 approved fixes are what the parent makes anyway") for message in told)
    assert events[-1].figures["pairs"] == 1


def test_fixes_that_the_parent_would_not_make_are_targets(goldens, shared, tmp_path) -> None:
    """Fixes of its weights from photos carried into the frame, of what its folder held before, and of two photos."""
    parent = tmp_path / "mine"
    shutil.copytree(goldens.checkpoint("difix_ref"), parent, copy_function=shutil.copyfile)
    guided = load_fixer(f"guided:{parent}")
    guided.load()
    now = guided.difix.settings
    made = {
        "guided": {"settings": guided.settings, "references": ["1.jpg"]},
        "earlier": {"settings": {**now, "weights": "of an earlier training"}, "references": ["1.jpg"]},
        "two": {"settings": {**now, "max_references": 2}, "references": ["1.jpg", "2.jpg"]},
        "own": {"settings": now, "references": ["1.jpg"]},
    }
    settings = config(goldens, shared, tmp_path, steps=1, start=str(parent))
    rows = json.loads(Path(settings.data, "difix.json").read_text())
    rows["train"] = dict.fromkeys(made, rows["train"]["a"])
    Path(settings.data, "difix.json").write_text(json.dumps(rows))
    provenance = {name: {"kind": "approved_fix", **facts} for name, facts in made.items()}
    Path(settings.data, "provenance.json").write_text(json.dumps(provenance))
    events = list(finetune(settings))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any(message.startswith("1 approved fixes are what the parent makes anyway") for message in told)
    assert events[-1].figures["pairs"] == 3


def test_the_same_weights_are_known_by_content_and_by_commit(goldens, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing here"))
    for name in ("first", "moved"):
        shutil.copytree(goldens.checkpoint("difix_ref"), tmp_path / name, copy_function=shutil.copyfile)
    first, moved = (str(tmp_path / name) for name in ("first", "moved"))
    fixer = load_fixer(first)
    fixer.load()
    assert makes_the_same(first, fixer.settings) and makes_the_same(moved, fixer.settings)
    weights = Path(moved, "unet", "diffusion_pytorch_model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    assert not makes_the_same(moved, {**fixer.settings, "checkpoint": "moved"})  # trained again into this folder
    pinned = PINNED_REVISIONS["nvidia/difix"]
    assert makes_the_same("nvidia/difix", {"checkpoint": "nvidia/difix", "revision": pinned, "timestep": 199})
    for other in ({"revision": COMMIT}, {"checkpoint": "nvidia/difix_ref"}, {"timestep": 300}, {"input": "photos"}):
        assert not makes_the_same("nvidia/difix", {"checkpoint": "nvidia/difix", "revision": pinned, **other})


def test_a_parent_on_the_hub_comes_with_progress_and_its_commit_is_kept(goldens, shared, tmp_path) -> None:
    export = tiny_export(shared, tmp_path / "export")
    flags = ["--from", "nvidia/difix_ref", "--out", tmp_path / "mine", "--steps", 1, "--validation-pairs", 0, "--json"]
    command = [sys.executable, "-m", "difix3d", "finetune", "--data", export, *flags]
    with StandInHub({"nvidia/difix_ref": goldens.checkpoint("difix_ref")}).serving() as hub:
        done = subprocess.run(
            [*map(str, command)], env=environment(hub.url, tmp_path / "home"), capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert "come from the Hub" in done.stderr and "Downloading" in done.stderr
    about = json.loads((tmp_path / "mine" / "difix3d.json").read_text())
    assert about["start"] | {"sha256": ""} == {"name": "nvidia/difix_ref", "revision": COMMIT, "sha256": ""}


def test_a_parent_that_was_trained_here_hands_on_licence_and_references_from_the_hub_too(
    goldens, shared, tmp_path
) -> None:
    parent = tmp_path / "parent"
    told = {"licence": NVIDIA_LICENCE, "references": 2, "data": {"frames": {"attic": ["00001.png"]}}}
    goldens.pipeline("difix").save_pretrained(parent, told)
    index = json.loads((parent / "model_index.json").read_text()) | {"_name_or_path": ""}
    (parent / "model_index.json").write_text(json.dumps(index))
    export = tiny_export(shared, tmp_path / "export")
    flags = ["--from", "ann/mine", "--out", tmp_path / "mine", "--steps", 1, "--validation-pairs", 0, "--json"]
    command = [sys.executable, "-m", "difix3d", "finetune", "--data", export, *flags]
    with StandInHub({"ann/mine": parent}).serving() as hub:
        done = subprocess.run(
            [*map(str, command)], env=environment(hub.url, tmp_path / "home"), capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "mine" / "difix3d.json").read_text())
    assert (about["start"]["name"], about["licence"], about["references"]) == ("ann/mine", NVIDIA_LICENCE, 2)
    assert about["data"]["frames"]["attic"] == ["00001.png"]
