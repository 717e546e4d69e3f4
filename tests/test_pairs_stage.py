"""From captures to pairs: what lies in the folder trains Difix and reads back, and a stopped run goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.atomic import write_json
from difix3d.cli import main
from difix3d.errors import ConfigError, FormatError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.metrics import psnr
from difix3d.pairs.read import load_pair, read_rows
from difix3d.pairs.rows import PairRow
from difix3d.ratings.export_scenes import split_scenes
from difix3d.scene import Scene
from difix3d.stages.pairing import store
from difix3d.stages.pairs import PairsConfig, pairs
from difix3d.training.framing import Framing
from difix3d.training.origin import frames_of, licences_of
from difix3d.training.pairs import read_pairs

STRAY = "00003.png"
"""A photo whose pose is wrong, in the scene `ball`."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of 16 photos: `ball`, where one photo lies 6 px beside its pose, and `marble`."""
    root = tmp_path_factory.mktemp("scenes")
    for name, seed in (("ball", 0), ("marble", 1)):
        scene = write_synthetic_scene(root / name, make_synthetic_scene(views=16, width=120, height=90, seed=seed))
        scene.update_info(licence="CC0", permissive=True)
    stray = root / "ball" / "images" / STRAY
    write_rgb(stray, np.roll(read_rgb(stray), 6, axis=1))
    return root


def config(folder: Path, out: Path, **changes) -> PairsConfig:
    settings = {
        "scenes": (str(folder),),
        "strategies": ("sparse", "halves"),
        "every": (2,),
        "steps": 100,
        "max_splats": 1500,
        "renderer": "cpu",
        "workers": 1,
    }
    return PairsConfig(out=str(out), **{**settings, **changes})


def run(settings: PairsConfig) -> tuple[list[Event], dict]:
    events = list(pairs(settings))
    assert isinstance(events[-1], Done)
    return events, events[-1].figures


@pytest.fixture(scope="module")
def made(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Both scenes by every strategy, in two processes."""
    out = tmp_path_factory.mktemp("pairs") / "out"
    strategies = ("sparse", "halves", "cross", "cycle", "underfit")
    _, figures = run(config(scenes, out, strategies=strategies, stops=(0.5,), steps=200, workers=2))
    return out, figures


def all_rows(out: Path) -> list[PairRow]:
    return [PairRow.from_json(json.loads(line)) for line in (out / "pairs.jsonl").read_text().splitlines()]


def test_pairs_are_renders_of_photos_that_their_fit_has_not_seen(made: tuple[Path, dict], scenes: Path) -> None:
    out, figures = made
    rows = read_rows(out)
    assert len(rows) == figures["pairs"] == figures["train"] + figures["test"] > 40
    assert {row.strategy for row in rows} >= {"sparse", "halves", "cycle"}
    assert {len(row.references) for row in rows} == {1, 2}, "as many as add something, not as many as there are"
    for row in rows:
        frame, references, target = load_pair(out, row)
        assert 1 <= len(references) <= 4 and all(one.depth is not None for one in references)
        assert row.photo not in {one.name for one in references}
        photo = read_rgb(scenes / row.scene / "images" / row.photo)
        assert np.array_equal(target, photo)
        assert row.psnr == pytest.approx(psnr(frame.rgb, target), abs=0.01)
        covered = frame.alpha > 0.5
        assert covered.any() and (frame.depth[covered] > 0).all() and frame.rgb.shape == target.shape
        assert row.references[0].score == max(one.score for one in row.references)
        assert row.provenance["licence"] == {"licence": "CC0", "permissive": True}
        assert row.provenance["steps"] == 200 and row.provenance["splats"] > 0


def test_a_photo_with_a_wrong_pose_is_found_and_kept_out(made: tuple[Path, dict]) -> None:
    out, figures = made
    # Between its neighbours, where the render is good: beyond them, wrong depth moves things about as far.
    between = [row for row in all_rows(out) if row.strategy == "sparse"]
    (stray,) = (row for row in between if (row.scene, row.photo) == ("ball", STRAY))
    assert stray.left_out.startswith("misaligned") and not stray.image
    others = [row for row in between if row.id != stray.id]
    assert len(others) == 15 and sum(bool(row.left_out) for row in others) <= 2
    assert figures["left_out"]["misaligned"] >= 1


def test_the_same_pairs_train_difix_and_scenes_are_on_one_side(made: tuple[Path, dict]) -> None:
    out, figures = made
    splits = read_pairs(out, Framing())
    assert {name: len(rows) for name, rows in splits.items()} == {key: figures[key] for key in ("train", "test")}
    assert all(len(pair.references) == 1 for rows in splits.values() for pair in rows)
    assert licences_of(splits["train"]) == ["photos: CC0"]
    rows = read_rows(out, "train")
    assert frames_of(splits["train"], {}) == {rows[0].scene: sorted({row.photo for row in rows})}
    of = {split: {row.scene for row in read_rows(out, split)} for split in ("train", "test")}
    assert len(of["train"]) == len(of["test"]) == 1 and of["train"] != of["test"]
    assert figures["scenes"]["ball"]["skipped"]["cross"].startswith("all photos are of one camera")


def test_the_folder_stands_alone_and_is_no_larger_than_was_reckoned(made: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = made
    moved = tmp_path / "elsewhere"
    shutil.copytree(out, moved)
    for row in read_rows(moved):
        load_pair(moved, row)
    files = {path for row in read_rows(out) for path in (row.image, row.alpha, row.depth, row.target)}
    files |= {path for row in read_rows(out) for one in row.references for path in (one.image, one.depth)}
    there = {path.relative_to(out).as_posix() for path in (out / "pairs").rglob("*") if path.is_file()}
    assert {path for path in there - files if not path.endswith("unit.json")} == set()
    units = [{**unit, "stops": {row.provenance["stop"] for row in unit["rows"]}} for unit in store.manifests(out)]
    pixels = 120 * 90
    most = sum(
        pixels * (store.RENDER_BYTES * len(unit["rows"]) + store.DEPTH_BYTES * 16 * len(unit["stops"]))
        for unit in units
    )
    most += 2 * 16 * store.PHOTO_BYTES * pixels
    pictures = sum((out / name).stat().st_size for name in files)
    assert pictures <= most + 200 * len(files)  # headers


def test_a_scene_stays_in_its_split_in_this_folder_and_the_next(scenes: Path, tmp_path: Path) -> None:
    for name in ("ball", "marble"):
        shutil.copytree(scenes / name, tmp_path / "scenes" / name)
        Scene(tmp_path / "scenes" / name).update_info(dataset_split="")
    first, second = sorted(("ball", "marble"), key=lambda name: split_scenes({"ball", "marble"}, 0.2)[name] != "test")
    settings = config(tmp_path / "scenes" / first, tmp_path / "out", strategies=("sparse",), steps=50, max_pairs=4)
    _, alone = run(settings)
    assert alone["scenes"][first]["split"] == "train"
    _, both = run(replace(settings, scenes=(str(tmp_path / "scenes" / second),)))
    assert {name: both["scenes"][name]["split"] for name in (first, second)} == {first: "train", second: "test"}
    assert [Scene(tmp_path / "scenes" / name).info["dataset_split"] for name in (first, second)] == ["train", "test"]
    events, other = run(replace(settings, scenes=(str(tmp_path / "scenes"),), out=str(tmp_path / "other")))
    assert {name: other["scenes"][name]["split"] for name in (first, second)} == {first: "train", second: "test"}
    assert not [event for event in events if isinstance(event, Warned) and "in test before" in event.message]


def test_what_is_made_stays_and_what_changed_is_made_anew(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = config(scenes / "marble", out, strategies=("sparse",))
    _, first = run(settings)
    assert (first["fits"], first["reused"]) == (1, 0)
    before = (out / "pairs.jsonl").read_bytes()
    _, again = run(settings)
    assert (again["fits"], again["reused"]) == (1, 1) and (out / "pairs.jsonl").read_bytes() == before
    _, other = run(replace(settings, references=2))
    assert other["reused"] == 0 and {len(row.references) for row in read_rows(out)} <= {1, 2}
    _, more = run(replace(settings, references=2, strategies=("halves",), max_pairs=3))
    assert more["strategies"]["sparse"] == other["pairs"] and more["strategies"]["halves"] <= 3


def test_a_stopped_run_leaves_whole_fits_and_goes_on(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = config(scenes / "marble", out)
    events = pairs(settings)
    for event in events:
        if isinstance(event, Progress) and event.unit == "fits" and event.done >= 1.2:
            break
    events.close()
    assert not [path for path in out.rglob(".*") if "partial" in path.name]
    whole = [path.parent.name for path in out.glob("pairs/marble/*/unit.json")]
    assert whole == ["every2"]
    _, figures = run(settings)
    assert (figures["fits"], figures["reused"]) == (3, 1)


def test_a_broken_scene_is_left_out_and_the_others_are_made(scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "marble", tmp_path / "scenes" / "marble")
    shutil.copytree(scenes / "ball", tmp_path / "scenes" / "broken")
    (tmp_path / "scenes" / "broken" / "images" / "00001.png").unlink()
    write_json(tmp_path / "scenes" / "empty" / "scene.json", {"name": "empty"})
    settings = config(tmp_path / "scenes", tmp_path / "out", strategies=("sparse",), steps=50)
    events, figures = run(settings)
    assert set(figures["failed"]) == {"empty", "broken, every2"} and "00001.png" in figures["failed"]["broken, every2"]
    assert "difix3d reconstruct" in figures["failed"]["empty"]
    assert {row.scene for row in all_rows(tmp_path / "out")} == {"marble"}
    assert sum(isinstance(event, Warned) for event in events) == 2


def test_what_cannot_be_is_said_before_any_work(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    out = tmp_path / "out"
    for settings, words in (
        (config(scenes, taken), "holds no pairs"),
        (config(scenes, out, scenes=()), "--scenes"),
        (config(taken, out), "expected a scene"),
        (config(scenes, out, strategies=("thorough",)), "no strategy 'thorough'"),
        (config(scenes, out, every=(1,)), "at least 2"),
        (config(scenes, out, stops=(1.0,)), "between 0 and 1"),
        (config(scenes, out, stops=(0.5, 0.503)), "at least 0.01 from the next"),
    ):
        with pytest.raises(ConfigError, match=words):
            list(pairs(settings))
        assert not out.exists()
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 2**28 + 2**10))
    arguments = ["pairs", "--scenes", str(scenes), "--out", str(out), "--every", "2", "3", "--renderer", "cpu"]
    assert main([*arguments, "--json"]) == 2
    error = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["error"]
    assert error["kind"] == "ConfigError" and "--max-pairs" in error["message"]
    assert not (out / "pairs").exists()


def test_two_runs_do_not_write_into_one_folder(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events = pairs(config(scenes, out))
    next(events)
    with pytest.raises(ConfigError, match="Another run"):
        list(pairs(config(scenes, out)))
    events.close()


def test_a_damaged_pair_is_named(made: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = made
    row = read_rows(out)[0]
    damaged = tmp_path / "damaged"
    shutil.copytree(out, damaged)
    np.save(damaged / row.depth, np.zeros((3, 3), np.float16))
    with pytest.raises(FormatError, match=r"depth\.npy: expected \[90, 120\]"):
        load_pair(damaged, row)
    (damaged / row.image).write_bytes(b"no picture")
    with pytest.raises(FormatError, match="could not be read"):
        load_pair(damaged, row)
    with (damaged / "pairs.jsonl").open("a") as sidecar:
        sidecar.write('{"id": "half a row"}\n')
    with pytest.raises(FormatError, match="line "):
        read_rows(damaged)
    with pytest.raises(FormatError, match="Make pairs with"):
        read_rows(tmp_path)
