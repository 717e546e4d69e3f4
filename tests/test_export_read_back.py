"""Others read an export with their own tools: `datasets`, and a trainer that knows Difix's JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rated_scene import RENDER_SIZE, make_scene, vote_on

from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore
from difix3d.scene import hash_file
from difix3d.stages.export import ExportConfig, export

PICK_A_PIC = {
    "are_different": "bool", "best_image_uid": "string", "caption": "string", "created_at": "timestamp[us, tz=UTC]",
    "has_label": "bool", "image_0_uid": "string", "image_1_uid": "string", "jpg_0": "binary", "jpg_1": "binary",
    "label_0": "float64", "label_1": "float64", "model_0": "string", "model_1": "string", "ranking_id": "int64",
    "user_id": "int64", "num_example_per_prompt": "int64",
}  # fmt: skip
PICTURES = ("image_0", "image_1", "source_image", "ref_image")


class Made:
    """Three scenes that five raters voted on, and their export."""

    def __init__(self, folder: Path, **filters):
        self.scenes, self.out = folder / "scenes", folder / "export"
        url = f"sqlite:///{folder / 'ratings.sqlite'}"
        with RatingStore(url) as store:
            for number in range(3):
                scene = make_scene(self.scenes, f"scene{number}", seed=100 * number)
                for rater, choice in zip("abcde", ("fix", "fix", "fix", "tie", "both_bad")):
                    for index in range(3):
                        vote_on(store, scene, choice, rater, index)
            self.votes = store.ratings(purposes=(RATE, GOLD, REPEAT))
        self.figures = list(export(ExportConfig(str(self.out), url, str(self.scenes), **filters)))[-1].figures
        self.mark = json.loads((self.out / "export.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("export"))


def test_datasets_reads_it_with_pictures_types_and_splits_by_scene(made: Made, tmp_path: Path) -> None:
    import datasets

    read = datasets.load_dataset(str(made.out), cache_dir=str(tmp_path))
    assert set(read) == {"train", "test"} and sum(map(len, read.values())) == len(made.votes) == 45
    scenes = {split: set(rows["scene_id"]) for split, rows in read.items()}
    assert all(scenes.values()) and not scenes["train"] & scenes["test"]
    for split, rows in read.items():
        assert {made.mark["splits"][scene] for scene in scenes[split]} == {split} == set(rows["split"])
    features = read["train"].features
    assert {name: features[name].dtype for name in PICK_A_PIC} == PICK_A_PIC
    assert all(isinstance(features[name], datasets.Image) for name in PICTURES)
    row = read["test"][0]
    assert all(row[name].size == RENDER_SIZE for name in PICTURES) and row["image_0"].mode == "RGB"
    # The very bytes that were rated.
    raw = read["test"].cast_column("image_0", datasets.Image(decode=False))[0]["image_0"]
    path = tmp_path / "raw.png"
    path.write_bytes(raw["bytes"])
    assert hash_file(path) == row["image_0_uid"]
    labels = {(each["label_0"], each["label_1"]) for each in read["train"]}
    assert labels <= {(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (None, None)} and len(labels) >= 3


def test_filters_leave_votes_out_and_the_export_says_so(tmp_path: Path) -> None:
    made = Made(tmp_path, without=("1", "2"), since="2000-01-01")
    assert made.mark["filters"]["without_raters"] == [1, 2] and made.mark["filters"]["votes_left_out"] == 18
    assert made.figures["preferences"] == 27 and made.figures["filtered"] == 18 and made.figures["ratings"] == 45
    log = [json.loads(line) for line in (made.out / "ratings.jsonl").read_text().splitlines()]
    assert {line["user_id"] for line in log if line["left_out"]} == {1, 2}, "in the log, and marked"
    card = (made.out / "README.md").read_text()
    assert "18 of raters [1, 2]" in card and "27 votes by 3 raters" in card and "Krippendorff's alpha" in card
    approved = [row for row in json.loads((made.out / "provenance.json").read_text()).values() if "votes" in row]
    assert approved and all(sum(row["votes"].values()) == 3 for row in approved)


@pytest.mark.shared
def test_difix_json_trains_for_twenty_steps(made: Made, goldens, shared: Path, tmp_path: Path, monkeypatch) -> None:
    from difix3d.fixers.difix import DifixPipeline
    from difix3d.stages.finetune import FinetuneConfig, finetune

    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    start, out = str(goldens.checkpoint("difix_ref")), tmp_path / "tuned"
    settings = {"steps": 20, "crop": 16, "tracker": "none", "validation_pairs": 0}
    done = list(finetune(FinetuneConfig(str(made.out), start, str(out), **settings)))[-1]
    assert done.figures["steps"] == 20 and done.figures["pairs"] == made.mark["figures"]["train"]
    assert DifixPipeline.from_pretrained(out)
