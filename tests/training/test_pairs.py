"""Reading a training JSON: what is accepted, and that everything that is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix3d.errors import ConfigError, FormatError
from difix3d.training.framing import Framing
from difix3d.training.pairs import APPROVED, has_true_target, hold_apart, read_pairs
from difix3d.types import TrainingPair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures NAME.png of some sizes, width x height: small 24x16, wide 96x64, tall 64x96."""
    rng = np.random.default_rng(0)
    for name, (width, height) in {"small": (24, 16), "wide": (96, 64), "wide2": (48, 32), "tall": (64, 96)}.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, train: Any, **splits: Any) -> Path:
    (folder / "difix.json").write_text(json.dumps({"train": train, **splits}))
    return folder


GOOD = {"image": "wide.png", "target_image": "wide.png"}


def test_rows_with_no_one_and_several_references(folder) -> None:
    train = {
        "none": GOOD,
        "one": {**GOOD, "ref_image": "tall.png", "prompt": "clean it"},
        "two": {**GOOD, "ref_image": ["tall.png", str(folder / "wide2.png")], "weight": 0.5},
        "empty": {**GOOD, "ref_image": []},
    }
    pairs = read_pairs(write(folder, train, test={"t": GOOD}))
    assert [len(pair.references) for pair in pairs["train"]] == [0, 1, 2, 0]
    assert [pair.prompt for pair in pairs["train"]] == ["remove degradation", "clean it"] + ["remove degradation"] * 2
    assert [pair.weight for pair in pairs["train"]] == [1.0, 1.0, 0.5, 1.0]
    assert len(pairs["test"]) == 1 and read_pairs(folder / "difix.json") == pairs


def test_weight_0_leaves_a_row_out(folder) -> None:
    assert len(read_pairs(write(folder, {"a": GOOD, "b": {**GOOD, "weight": 0}}))["train"]) == 1


def test_every_broken_row_is_named_with_what_is_wrong(folder) -> None:
    (folder / "text.png").write_text("no picture")
    whole = (folder / "wide.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    bad = {
        "gone": ({**GOOD, "target_image": "gone.png"}, "target_image 'gone.png' is no file"),
        "folder": ({**GOOD, "image": ""}, "image '' is no file"),
        "number": ({**GOOD, "ref_image": 3}, "ref_image 3 is no file"),
        "second": ({**GOOD, "ref_image": ["tall.png", "gone.png"]}, "ref_image 'gone.png' is no file"),
        "text": ({**GOOD, "image": "text.png"}, "image 'text.png' is no picture"),
        "cut": ({**GOOD, "ref_image": "cut.png"}, "ref_image 'cut.png' is no picture"),
        "row": ("no row", "expected an object"),
        "aspect": ({**GOOD, "target_image": "tall.png"}, "target_image is 64x96, of another shape"),
        "small": ({"image": "small.png", "target_image": "small.png"}, "24x16 is too small for crops of 32"),
        "weight": ({**GOOD, "weight": -1}, "weight -1: expected a number"),
        "nan": ({**GOOD, "weight": float("nan")}, "weight nan: expected a number"),
    }
    write(folder, {"good": GOOD, **{name: row for name, (row, _) in bad.items()}}, test={"t": {}})
    with pytest.raises(FormatError) as caught:
        read_pairs(folder, Framing(crop_px=32))
    lines = caught.value.message.splitlines()
    assert "12 of 13 rows cannot be used" in lines[0]
    for line, (name, (_, words)) in zip(lines[1:], bad.items(), strict=False):
        assert line.startswith(f"train/{name}: ") and words in line
    assert lines[-1].startswith("test/t: image None")


def test_a_long_list_of_broken_rows_stays_whole_and_short(folder) -> None:
    write(folder, {f"row{index:04d}": {} for index in range(1000)})
    with pytest.raises(FormatError) as caught:
        read_pairs(folder)
    assert all(f"train/row{index:04d}" in caught.value.message for index in range(1000))
    assert len(caught.value.message.splitlines()) < 25


def test_crops_limit_training_pictures_only(folder) -> None:
    small = {"image": "small.png", "target_image": "small.png"}
    assert read_pairs(write(folder, {"a": GOOD}, test={"t": small}), Framing(crop_px=32))["test"]


@pytest.mark.parametrize(("text", "words"), [("{", "expected JSON"), ("[]", 'no "train"'), ('{"test": {}}', "no")])
def test_what_is_no_training_json_is_told(folder, text, words) -> None:
    (folder / "difix.json").write_text(text)
    with pytest.raises(FormatError, match=words):
        read_pairs(folder)


def test_a_folder_without_one_says_how_to_make_it(tmp_path) -> None:
    with pytest.raises(FormatError, match="difix3d export"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{"width": 64}, {"crop_px": 12}, {"width": 60, "height": 64}, {"width": 64, "height": 32, "crop_px": 40}],
)
def test_impossible_framings_are_named(settings) -> None:
    with pytest.raises(ConfigError, match=r"width|crop"):
        Framing(**settings)


def test_without_a_test_scene_every_fifth_photo_is_kept_apart_with_all_of_its_frame() -> None:
    photos = [TrainingPair(Path(f"render{index}.png"), Path(f"photo{index}.png")) for index in range(10)]
    liked = TrainingPair(Path("render2.png"), Path("fix.png"), provenance={"kind": APPROVED})
    compared = TrainingPair(Path("render7.png"), Path("fix.png"), worse_image=Path("worse.png"))
    pairs, apart = hold_apart({"train": [*photos, liked, compared], "test": []})
    assert apart == 2 and pairs["test"] == [photos[2], photos[7]]
    assert pairs["train"] == [pair for pair in photos if pair not in pairs["test"]]
    # What raters liked is no truth to judge by: a test scene that holds nothing else is as good as none.
    again, apart = hold_apart({"train": photos, "test": [liked]})
    assert apart == 2 and again["test"] == [photos[2], photos[7]]
    assert hold_apart({"train": photos, "test": [liked, photos[1]]})[0]["test"] == [photos[1]]
    # A test scene is better, and from four photos nothing can be spared.
    assert hold_apart({"train": photos, "test": photos[:1]}) == ({"train": photos, "test": photos[:1]}, 0)
    assert hold_apart({"train": photos[:4]}) == ({"train": photos[:4]}, 0)


def test_whole_photos_are_kept_apart_where_each_is_the_target_of_several_fits() -> None:
    """As pairs have it: each photo is a target of three fits, and a reference in those that saw it."""
    photos = [Path(f"photo{index}.png") for index in range(10)]
    rows = [
        TrainingPair(Path(f"fit{fit}-{index}.png"), photo, (photos[index - 1], photos[(index + 1) % 10]))
        for fit in range(3)
        for index, photo in enumerate(photos)
    ]
    pairs, apart = hold_apart({"train": rows})
    held = {photos[2], photos[7]}
    assert apart == 2 and [pair for pair in rows if pair.target_image in held] == pairs["test"]
    assert len(pairs["train"]) == 24 and not {pair.target_image for pair in pairs["train"]} & held
    # Its own target is each reference, too; the other reference stays.
    assert not {photo for pair in pairs["train"] for photo in pair.references} & held
    assert {len(pair.references) for pair in pairs["train"]} == {1, 2}
    # Many rows of four photos are no more than four photos.
    few = [pair for pair in rows if pair.target_image in photos[:4]]
    assert hold_apart({"train": few}) == ({"train": few}, 0)


def test_rows_know_where_they_are_from(folder) -> None:
    write(folder, {"a": GOOD})
    (folder / "provenance.json").write_text(json.dumps({"a": {"kind": APPROVED}}))
    assert not has_true_target(read_pairs(folder)["train"][0])
    (folder / "provenance.json").write_text("{")
    with pytest.raises(FormatError, match=r"provenance\.json: expected JSON"):
        read_pairs(folder)
