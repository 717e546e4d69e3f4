"""The command line: one JSON line, exit status 2 in words for what cannot be done, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from difix3d.cli import main
from difix3d.scene import Scene


def run_cli(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "difix3d", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def last_json(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["run", "no/such/place"], "ConfigError", "no such file or folder"),
        (["fit", "--scene", "no/such/scene"], "SceneError", "holds no scene.json"),
        (["fit", "--scene", "x", "--preset", "fastest"], "ConfigError", "invalid choice"),
        (["run"], "ConfigError", "required: capture"),
        (["dance"], "ConfigError", "invalid choice: 'dance'"),
        (["finetune", "--data", "nowhere", "--from", "x", "--out", "y"], "", ""),
    ],
)
def test_what_cannot_be_done_is_told_in_words(capsys, arguments: list[str], kind: str, words: str) -> None:
    assert main([*arguments, "--json"]) == 2
    told = last_json(capsys)
    assert told["ok"] is False and words in told["error"]["message"]
    assert kind in told["error"]["kind"]


def test_stages_that_lack_their_input_say_what_to_run_first(capsys, tmp_path) -> None:
    Scene.create(tmp_path / "scene")
    for stage in ("reconstruct", "fit", "render", "fix", "evaluate"):
        extra = ["--trajectory", "orbit"] if stage in ("render", "fix") else []
        assert main([stage, "--scene", str(tmp_path / "scene"), *extra, "--json"]) == 2, stage
        error = last_json(capsys)["error"]
        assert "difix3d " in error["message"] or "--" in error["message"] or "run" in error["message"], error


def test_hostile_captures_end_with_status_2_and_no_traceback(shared: Path, tmp_path) -> None:
    bad = shared / "scenes" / "bad"
    for number, capture in enumerate((bad / "one_photo", bad / "videos" / "garbage.mp4", bad / "corrupt_files")):
        done = run_cli("run", capture, "--scene", tmp_path / f"scene{number}", "--json")
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        told = json.loads(done.stdout.strip().splitlines()[-1])
        assert told["error"]["kind"] == "CaptureError" and len(told["error"]["message"]) > 40


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (["--fixer", "lit"], "FixerError", "no fixer 'lit'"),
        (["--fixer", "guided:lit"], "FixerError", "no fixer 'guided:lit'"),
        (["--trajectory", "orbit", "orbt"], "ConfigError", "no trajectory 'orbt'"),
        (["--trajectory", "no/such/path.json"], "FormatError", "no/such/path.json"),
        (["--holdout", "1"], "ConfigError", "(holdout) is 1: expected 0"),
        (["--holdout", "-1"], "ConfigError", "(holdout) is -1: expected 0"),
        (["--train-every", "0"], "ConfigError", "train_every is 0; at least 1"),
        (["--seconds", "-5"], "ConfigError", "seconds is -5"),
        (["--fixer", "nobody/nothing"], "CaptureError", "at least 4"),  # of the Hub: asked when it is to fix
    ],
)
def test_a_run_tells_wrong_flags_before_its_first_stage(
    capsys, tmp_path: Path, flags: list[str], kind: str, words: str
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "one.jpg")  # too few: what ingest would say
    scene = tmp_path / "scene"
    assert main(["run", str(tmp_path / "photos"), "--scene", str(scene), *flags, "--json"]) == 2
    error = last_json(capsys)["error"]
    assert error["kind"] == kind and words in error["message"]
    assert bool(list(Scene(scene).events())) == (kind == "CaptureError")


def test_a_bug_is_status_1_with_its_traceback(capsys, monkeypatch, tmp_path) -> None:
    import difix3d.cli

    def broken(arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(difix3d.cli._COMMANDS, "ratings", broken)
    assert main(["ratings", "--json"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert json.loads(captured.out.strip().splitlines()[-1])["error"]["kind"] == "Crash"


def test_two_captures_of_one_name_get_two_scenes(tmp_path, monkeypatch) -> None:
    from difix3d.cli import _scene_for

    monkeypatch.setenv("DIFIX3D_SCENES", str(tmp_path / "scenes"))
    for place in ("a", "b"):
        (tmp_path / place / "garden" / "images").mkdir(parents=True)
    first, _ = _scene_for([str(tmp_path / "a" / "garden" / "images")], None)
    second, _ = _scene_for([str(tmp_path / "b" / "garden" / "images")], None)
    again, capture = _scene_for([str(tmp_path / "a" / "garden" / "images")], None)
    assert first.id == "garden" and second.id == "garden-2" and again.root == first.root and capture
    itself, capture = _scene_for([str(first.root)], None)
    assert itself.root == first.root and capture == []


def test_fixers_are_listed_for_people_and_for_programs(capsys, shared: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("DIFIX3D_FIXER", str(shared / "golden" / "checkpoint_difix_ref"))
    assert main(["fixers", "--json"]) == 0
    figures = last_json(capsys)["figures"]
    assert {"reproject", "difix", "nvidia/difix", "nvidia/difix_ref"} <= set(figures)
    difix, published = figures["difix"], figures["nvidia/difix_ref"]
    assert difix["download_bytes"] == 0 and difix["references"] == 1 and not difix["measured"]
    assert published["download_bytes"] > 5e9 and published["seconds"] > difix["seconds"] > 0
    assert "non-commercial" in published["licence"] and published["device"]
    assert main(["fixers"]) == 0
    assert "nvidia/difix: about" in capsys.readouterr().out


def test_weights_that_cannot_be_had_are_told_in_words(capsys, tmp_path: Path) -> None:
    from hub_stand_in import StandInHub, environment

    with StandInHub({}).serving() as hub:
        for what, words in ((), "no model timm/vgg16"), (("nobody/nothing",), "no model nobody/nothing"):
            done = subprocess.run(
                [sys.executable, "-m", "difix3d", "weights", *what, "--json"],
                env=environment(hub.url, tmp_path / "home"),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 2 and words in json.loads(done.stdout)["error"]["message"], done.stderr
            assert "Traceback" not in done.stderr
    assert main(["weights", "reproject", "--json"]) == 0
    assert last_json(capsys)["ok"] is True
