"""The scene folder: atomic writes, manifests, events, paths that stay inside."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from difix3d.atomic import partial_folder, recover_folder, replacing_file, replacing_folder, write_json
from difix3d.errors import SceneError
from difix3d.events import Artifact, Done, Event, Failed, Progress, Warned, from_json, to_json
from difix3d.scene import Scene, folder_name, safe_name
from difix3d.stages.base import option, stage


@dataclass(frozen=True)
class CountConfig:
    upto: int = option(3, "how far to count")


runs: list[int] = []


@stage("count", inputs=("capture",), outputs=("counted.txt",))
def count(scene: Scene, config: CountConfig) -> Iterator[Event]:
    runs.append(config.upto)
    for number in range(config.upto):
        yield Progress("count", "counting", number, config.upto)
    yield Warned("count", "that was all")
    with replacing_file(scene.root / "counted.txt") as path:
        path.write_text(str(config.upto))
    return {"last": np.float32(config.upto)}


@stage("count", inputs=("capture",), outputs=("counted.txt",), version=2)
def count_otherwise(scene: Scene, config: CountConfig) -> Iterator[Event]:
    """The same stage in a later version of the program."""
    runs.append(-config.upto)
    with replacing_file(scene.root / "counted.txt") as path:
        path.write_text("otherwise")
    yield Progress("count", "counting", config.upto, config.upto)
    return {}


@pytest.fixture
def scene(tmp_path) -> Scene:
    scene = Scene.create(tmp_path / "demo", name="Demo")
    scene.capture_dir.mkdir()
    (scene.capture_dir / "a.txt").write_text("one")
    return scene


def test_what_an_earlier_version_of_a_stage_made_is_made_anew(scene: Scene) -> None:
    runs.clear()
    list(count(scene, CountConfig()))
    manifest = scene.manifest("count")
    del manifest["version"]  # of before there were any
    write_json(scene.manifest_path("count"), manifest)
    assert list(count(scene, CountConfig()))[-1].skipped
    assert not list(count_otherwise(scene, CountConfig()))[-1].skipped
    assert list(count_otherwise(scene, CountConfig()))[-1].skipped and runs == [3, -3]


def test_a_stage_is_skipped_only_when_config_and_inputs_match(scene: Scene) -> None:
    runs.clear()
    *_, done = count(scene, CountConfig())
    assert isinstance(done, Done) and done.figures == {"last": 3.0} and not done.skipped
    *_, done = count(scene, CountConfig())
    assert done.skipped and done.figures == {"last": 3.0} and runs == [3]
    list(count(scene, CountConfig(upto=4)))
    assert runs == [3, 4]
    (scene.capture_dir / "a.txt").write_text("two")
    list(count(scene, CountConfig(upto=4)))
    assert runs == [3, 4, 4]
    (scene.root / "counted.txt").unlink()
    list(count(scene, CountConfig(upto=4)))
    assert runs == [3, 4, 4, 4]
    assert scene.manifest("count")["warnings"] == ["that was all"]


def test_closing_a_stage_leaves_the_previous_state(scene: Scene) -> None:
    list(count(scene, CountConfig()))
    events = count(scene, CountConfig(upto=9))
    next(events)
    events.close()
    assert (scene.root / "counted.txt").read_text() == "3"
    assert scene.manifest("count")["config"] == {"upto": 3}


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path) -> None:
    target = tmp_path / "value.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing_file(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]

    folder = tmp_path / "folder"
    for text in ("first", "second"):
        with replacing_folder(folder) as path:
            (path / "x").write_text(text)
    with pytest.raises(RuntimeError), replacing_folder(folder) as path:
        raise RuntimeError
    assert (folder / "x").read_text() == "second"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "value.txt"]


def test_only_what_dead_writers_left_is_swept(scene: Scene) -> None:
    """Whatever its age, which says how long a reconstruction takes and no more."""
    old = time.time() - 7200

    def aged(path: Path) -> Path:
        for one in (*path.rglob("*"), path):
            os.utime(one, (old, old))
        return path

    writing = "import sys, time; from pathlib import Path; from difix3d.atomic import partial_folder, replacing_file\n"
    writing += "root = Path(sys.argv[1])\n"
    writing += "with partial_folder(root / 'work') as folder, replacing_file(root / 'x.json') as file:\n"
    writing += "    (folder / 'deep').mkdir(); (folder / 'deep/db').touch(); file.touch(); print('there', flush=True)\n"
    writing += "    time.sleep(600)\n"
    child = subprocess.Popen([sys.executable, "-c", writing, str(scene.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "there\n"
        with partial_folder(scene.root / "mine") as mine:
            mine.joinpath("file").touch()
            scene.sweep_partials()
            assert mine.joinpath("file").is_file() and len(list(scene.root.glob(".*.partial*"))) == 3
        elsewhere = scene.root / ".work.otherhost-1-abc.partial"
        (elsewhere / "deep").mkdir(parents=True)
        aged(elsewhere)
        (elsewhere / "deep" / "db").touch()  # another machine's, written to just now
        # A process that started at another time has the number of the one that wrote it.
        name = f".reused.{mine.name.split('.')[2].split('-')[0]}-{os.getpid()}-1-abc.partial"
        (scene.root / name).mkdir()
    finally:
        child.kill()
        child.wait()
    scene.sweep_partials()
    assert list(scene.root.glob(".*.partial*")) == [elsewhere]
    aged(elsewhere)
    scene.sweep_partials()
    assert not list(scene.root.glob(".*.partial*"))


def test_a_kill_between_the_two_renames_is_mended(tmp_path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    folder.rename(tmp_path / ".images.old")
    recover_folder(folder)
    assert folder.is_dir()


def test_events_survive_the_log_and_a_half_written_line_waits(scene: Scene) -> None:
    said = [
        Progress("fit", "fitting", 3, 10, "steps", 2.5, {"psnr": 20.0}),
        Artifact("fit", "preview", "previews/fit.jpg"),
        Warned("fit", "naïve “quotes”\nand a new line"),
        Done("fit", 1.0, {"a": [1, 2]}, ("splats.ply",)),
        Failed("fit", "CaptureError", "no"),
    ]
    for event in said:
        scene.log(event, "job1")
        assert from_json(to_json(event)) == event
    with scene.events_path.open("ab") as log:
        log.write(b'{"event": "Warn')
    read = list(scene.events())
    assert [event for _, _, _, event in read] == said
    assert {job for _, _, job, _ in read} == {"job1"}
    offset = read[1][0]
    assert [event for _, _, _, event in scene.events(offset)] == said[2:]


@pytest.mark.parametrize("name", ["../x", "/etc", "", ".hidden", "a/b", "x" * 81, "a\0b", "a\n"])
def test_no_name_leads_out_of_the_scene(scene: Scene, name: str) -> None:
    with pytest.raises(SceneError):
        safe_name(name)
    with pytest.raises(SceneError):
        scene.renders_dir(name)


def test_a_line_that_a_full_disk_cut_short_spoils_no_other(scene: Scene) -> None:
    scene.log(Progress("fit", "one"), "a")
    whole = scene.events_path.read_bytes()
    scene.log(Progress("fit", "two"), "a")
    cut = scene.events_path.read_bytes()[:-20]
    scene.events_path.write_bytes(cut)
    assert [event.message for *_, event in scene.events()] == ["one"]
    scene.log(Progress("fit", "three"), "a")
    assert [event.message for *_, event in scene.events()] == ["one", "three"]
    offsets = [offset for offset, *_ in scene.events()]
    assert offsets == [len(whole), scene.events_path.stat().st_size]
    assert [event.message for *_, event in scene.events(len(whole))] == ["three"]


def test_a_disk_that_takes_no_more_of_an_event_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(OSError, match="No space left") as caught:
        scene.log(Progress("fit", "one"), "a")
    assert caught.value.errno == errno.ENOSPC


def test_names_of_two_fit_into_one(scene: Scene) -> None:
    """A camera path and a fixer, each as long as a name may be."""
    both = f"{'p' * 80}-{'f' * 40}"
    assert scene.video_path(both).name == f"{both}.webm" and scene.manifest("fix", both) is None
    with pytest.raises(SceneError, match="at most 200"):
        scene.video_path("p" * 201)


def test_inside_refuses_to_leave(scene: Scene) -> None:
    assert scene.inside("renders/orbit/00000.png").is_relative_to(scene.root)
    for name in ("../other/scene.json", "/etc/passwd"):
        with pytest.raises(SceneError, match="leads out"):
            scene.inside(name)


@pytest.mark.parametrize("text", ["nvidia/difix_ref", "../../x", "ünï code", "", "a" * 200, "...."])
def test_folder_names_are_safe(text: str) -> None:
    assert safe_name(folder_name(text))


def test_a_folder_without_scene_json_is_told_in_words(tmp_path) -> None:
    with pytest.raises(SceneError, match=r"holds no scene\.json"):
        Scene(tmp_path)
