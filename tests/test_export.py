"""An export stands alone: every row's pictures are in it, exactly as they were rated, and trainers can read it."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rated_scene import HELDOUT, PHOTO_SIZE, RENDER_SIZE, make_scene, picture, vote_on

from difix3d.errors import ConfigError, RatingError
from difix3d.events import Done, Event, Warned
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.export_scenes import find_scenes, known_splits, split_scenes
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene, hash_file
from difix3d.stages.export import ExportConfig, export


class Studio:
    """A folder of scenes, a store, and the export of both."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scenes = folder / "scenes"
        self.out = folder / "exports" / "first"
        self.url = f"sqlite:///{folder / 'ratings.sqlite'}"
        self.store = RatingStore(self.url)

    def export(self, **changes) -> tuple[dict, list[str]]:
        """(figures, warnings)"""
        config = ExportConfig(**{"out": str(self.out), "ratings_db": self.url, "scenes": str(self.scenes), **changes})
        events: list[Event] = list(export(config))
        assert isinstance(events[-1], Done) and events[-1].outputs == (str(Path(config.out)),)
        return events[-1].figures, [event.message for event in events if isinstance(event, Warned)]

    def json(self, name: str) -> dict:
        return json.loads((self.out / name).read_text())

    def table(self) -> list[dict]:
        files = sorted(self.out.glob("preferences-*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        return sorted(rows, key=lambda row: row["ranking_id"])


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path)
    yield made
    made.store.close()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_heldout_photos_are_targets_without_any_vote(studio: Studio) -> None:
    make_scene(studio.scenes, "court")
    figures, warnings = studio.export()
    assert any("No votes yet" in warning for warning in warnings)
    assert any("One scene only (court)" in warning for warning in warnings)
    rows = studio.json("difix.json")
    assert set(rows) == {"train", "test"} and rows["test"] == {} and len(rows["train"]) == 2
    for index, (row_id, row) in enumerate(rows["train"].items()):
        assert set(row) == {"image", "target_image", "ref_image", "prompt"} and row["prompt"] == "remove degradation"
        for role in ("image", "target_image", "ref_image"):
            path = studio.out / row[role]
            assert path.suffix == ".png" and path.stem == hash_file(path)
            with Image.open(path) as image:
                assert image.mode == "RGB" and image.size == RENDER_SIZE
        number = int(HELDOUT[index][:5])
        photo = Image.fromarray(picture(number, PHOTO_SIZE)).resize(RENDER_SIZE, Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(Image.open(studio.out / row["target_image"])), np.asarray(photo))
        assert hash_file(studio.out / row["image"]) == hash_file(
            studio.scenes / f"court/renders/heldout/0000{index}.png"
        )
        provenance = studio.json("provenance.json")[row_id]
        assert (provenance["kind"], provenance["reference"], provenance["split"]) == ("photo", "00003.png", "train")
    assert studio.table() == [] and (studio.out / "ratings.jsonl").read_text() == ""
    assert (figures["photos"], figures["preferences"], figures["images"]) == (2, 0, 8)  # 2, 2 and 4


def test_the_nearest_training_photo_is_the_reference_where_no_fix_names_one(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    shutil.rmtree(scene.root / "fixed")
    studio.export()
    provenance = studio.json("provenance.json")
    references = {facts["photo"]: facts["reference"] for facts in provenance.values()}
    assert references["00001.png"] in ("00000.png", "00002.png") and references["00004.png"] in (
        "00003.png",
        "00005.png",
    )

    (scene.sparse_dir / "images.bin").unlink()
    (scene.sparse_dir / "cameras.bin").unlink()
    figures, _ = studio.export()  # no cameras, so no reference: kept apart
    assert figures["train"] == 0 and figures["without_reference"] == 2
    assert all("ref_image" not in row for row in studio.json("difix_no_ref.json")["train"].values())


def test_only_fixes_that_most_votes_prefer_to_the_render_become_targets(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    for index, choices in enumerate([("fix", "fix", "render"), ("fix", "tie"), ("fix", "fix", "fix")]):
        for number, choice in enumerate(choices):
            vote_on(studio.store, scene, choice, f"rater{number}", index)
    for _ in range(2):
        studio.store.undo("rater2")  # the third vote on frame 2, then the one on frame 0
    vote_on(studio.store, scene, "skip", "rater3", 1)
    figures, _ = studio.export()
    provenance = studio.json("provenance.json")
    approved = {facts["frame_index"]: facts for facts in provenance.values() if facts["kind"] == "approved_fix"}
    assert set(approved) == {0, 2} and figures["approved"] == 2  # frame 1: half is not most
    assert approved[0]["votes"] == {"for_fix": 2, "for_render": 0, "ties": 0, "both_bad": 0}
    row = next(row for row_id, row in studio.json("difix.json")["train"].items() if "-orbit-00002-" in row_id)
    render, fix = candidates_of(scene)["orbit", 2]
    assert row["image"] == f"images/{render.sha256}.png" and row["target_image"] == f"images/{fix.sha256}.png"
    assert "ref_image" in row

    figures, _ = studio.export(min_votes=3)
    assert figures["approved"] == 0


def test_preferences_have_the_columns_and_the_pixels(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    choices = {"ann": "fix", "bob": "tie", "cyd": "both_bad", "dan": "skip", "eve": "render"}
    ids = {rater: vote_on(studio.store, scene, choice, rater) for rater, choice in choices.items()}
    vote_on(studio.store, scene, "fix", "ann", 1)
    studio.store.undo("ann")
    figures, _ = studio.export()
    assert figures["preferences"] == 5 and figures["ratings"] == 6 and figures["left_out"] == 0
    rows = studio.table()
    entries = {entry.id: entry for entry in studio.store.ratings()}
    for row, (rater, choice) in zip(rows, choices.items()):
        entry = entries[ids[rater]]
        a, b = entry.rating.candidate_a, entry.rating.candidate_b
        assert (row["image_0_uid"], row["image_1_uid"]) == (a.sha256, b.sha256)
        assert (row["model_0"], row["model_1"]) == (a.fixer, b.fixer)
        for side, candidate in (("0", a), ("1", b)):
            file = scene.root / candidate.image_path
            assert row[f"image_{side}"] == {"bytes": file.read_bytes(), "path": f"{candidate.sha256}.png"}
            assert Image.open(io.BytesIO(row[f"jpg_{side}"])).format == "JPEG"
            assert np.abs(pixels(row[f"jpg_{side}"]) - pixels(file.read_bytes())).mean() < 2.5
        assert row["source_image"]["bytes"] == (scene.root / "renders/orbit/00000.png").read_bytes()
        reference = Image.fromarray(picture(2, PHOTO_SIZE)).resize(RENDER_SIZE, Image.Resampling.LANCZOS)
        assert np.abs(pixels(row["ref_image"]["bytes"]) - np.asarray(reference)).mean() < 2.5
        labels = (row["label_0"], row["label_1"])
        if choice in ("fix", "render"):
            wanted = "reproject" if choice == "fix" else "render"
            winner = row["model_0"] if labels == (1.0, 0.0) else row["model_1"]
            assert set(labels) == {0.0, 1.0} and winner == wanted and row["has_label"] and row["are_different"]
            assert row["best_image_uid"] == (a if a.fixer == wanted else b).sha256
        elif choice == "tie":
            assert labels == (0.5, 0.5) and row["has_label"] and not row["are_different"]
        else:
            assert labels == (None, None) and not row["has_label"] and row["best_image_uid"] == "none"
        assert row["both_bad"] == (choice == "both_bad") and row["client_ms"] == 1500 and row["left_is"] in "ab"
        assert row["num_example_per_prompt"] == 5 and row["split"] == "train" and row["caption"] == "remove degradation"
        assert set(row["license"].split(" · ")) == {"photos: not stated", "photos: not stated; reproject: Apache-2.0"}
        assert row["created_at"].utcoffset().total_seconds() == 0
    assert [row["ranking_id"] for row in rows] == sorted(row["ranking_id"] for row in rows)
    assert len({row["user_id"] for row in rows}) == 5

    log = [json.loads(line) for line in (studio.out / "ratings.jsonl").read_text().splitlines()]
    assert [entry["superseded_as"] for entry in log] == [None] * 5 + ["retract"]
    assert [entry["superseded"] for entry in log] == [False] * 5 + [True]
    assert log[0]["candidate_a"]["sha256"] == rows[0]["image_0_uid"]
    assert not any(rater in (studio.out / "ratings.jsonl").read_text() for rater in choices)  # pseudonyms only


def test_the_parquet_tells_datasets_which_columns_are_pictures(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    vote_on(studio.store, scene, "fix", "ann")
    studio.export()
    schema = pq.read_schema(studio.out / "preferences-train.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == set(schema.names)
    assert {name for name, feature in features.items() if feature["_type"] == "Image"} == {
        "image_0", "image_1", "source_image", "ref_image",
    }  # fmt: skip
    assert features["label_0"] == {"dtype": "float64", "_type": "Value"}
    assert features["jpg_0"] == {"dtype": "binary", "_type": "Value"}
    assert features["created_at"] == {"dtype": "timestamp[us, tz=UTC]", "_type": "Value"}


def test_splits_are_by_scene_and_stay_as_scenes_join(studio: Studio) -> None:
    scenes = [make_scene(studio.scenes, f"scene{number}", seed=100 * number) for number in range(3)]
    for scene in scenes:
        vote_on(studio.store, scene, "fix", "ann")
    _, warnings = studio.export()
    assert warnings == []
    rows, provenance = studio.json("difix.json"), studio.json("provenance.json")
    assert rows["train"] and rows["test"]
    of_split = {split: {provenance[row]["scene_id"] for row in rows[split]} for split in rows}
    assert not of_split["train"] & of_split["test"]
    by_scene = {row["scene_id"]: row["split"] for row in studio.table()}
    assert by_scene == studio.json("export.json")["splits"]

    names = {f"scene{number}" for number in range(200)}
    before, after = split_scenes(names, 0.2), split_scenes(names | {"one more"}, 0.2)
    assert {name: after[name] for name in names} == before
    assert 0.1 < sum(split == "test" for split in before.values()) / 200 < 0.3
    assert split_scenes({"one"}, 0.2) == {"one": "train"} and split_scenes(set(), 0.2) == {}
    assert set(split_scenes({"one", "two"}, 0.0).values()) == {"train"}
    for pair in ({"a", "b"}, {"c", "d"}, {"x", "y"}):
        assert sorted(split_scenes(pair, 0.2).values()) == ["test", "train"]


def test_no_scene_moves_to_the_test_split_whatever_joins() -> None:
    """Scenes join in any order, some are exported without others: what was in train once is never in test."""
    rng = random.Random(0)
    for _ in range(300):
        known: dict[str, str] = {}
        names = [f"{rng.random():.6f}" for _ in range(rng.randint(1, 8))]
        for _ in range(12):
            chosen = set(rng.sample(names, rng.randint(1, len(names))))
            splits = split_scenes(chosen, rng.choice((0.2, 0.2, 0.5)), known)
            assert splits.keys() == chosen and "train" in splits.values()
            moved = [name for name in chosen if known.get(name, splits[name]) != splits[name]]
            if any(known.get(name) != "test" for name in chosen):
                assert not moved
            assert len(moved) <= 1 and all(splits[name] == "train" for name in moved)
            if len(chosen) > 1 and len(chosen - known.keys()) > 0:
                assert "test" in splits.values()
            known |= splits
    assert split_scenes({"a", "b"}, 0.0, {"a": "test"}) == {"a": "train", "b": "train"}
    names = [f"scene{number}" for number in range(200)]
    known = {}
    for count in range(1, 201):
        known = split_scenes(set(names[:count]), 0.2, known)
    assert 0.1 < sum(split == "test" for split in known.values()) / 200 < 0.3


def test_a_scene_stays_in_its_split_from_one_export_to_the_next(studio: Studio) -> None:
    names = ("court", "garden")
    first = next(name for name in names if split_scenes(set(names), 0.2)[name] == "test")
    make_scene(studio.scenes, first)
    studio.export()
    assert studio.json("export.json")["splits"] == {first: "train"}
    second = make_scene(studio.scenes, next(name for name in names if name != first), seed=100)
    _, warnings = studio.export(out=str(studio.folder / "exports" / "second"))
    mark = json.loads((studio.folder / "exports" / "second" / "export.json").read_text())
    assert mark["splits"] == {first: "train", second.id: "test"} == known_splits(find_scenes(studio.scenes))
    assert not any("split" in warning or "in test before" in warning for warning in warnings)

    # Alone, one that was in test is trained on, which is said, and then it stays in train.
    _, warnings = studio.export(scenes=str(second.root), out=str(studio.folder / "exports" / "third"))
    assert any(warning.startswith(f"{second.id} was in test before, and is in train from now") for warning in warnings)
    _, warnings = studio.export()
    assert set(studio.json("export.json")["splits"].values()) == {"train"}
    assert any(warning.startswith("All 2 scenes were in train before") for warning in warnings)


def test_an_export_that_replaces_one_of_an_older_version_keeps_its_splits(studio: Studio) -> None:
    names = ("court", "garden")
    first = next(name for name in names if split_scenes(set(names), 0.2)[name] == "test")
    scene = make_scene(studio.scenes, first)
    studio.export()
    scene.update_info(dataset_split="")  # as it was before splits were written down
    make_scene(studio.scenes, next(name for name in names if name != first), seed=100)
    studio.export()
    assert studio.json("export.json")["splits"][first] == "train"


def test_missing_and_altered_pictures_are_left_out_and_named(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    for index in range(3):
        vote_on(studio.store, scene, "fix", "ann", index)
    assert studio.store.verify(studio.scenes) == []
    (scene.root / "fixed/orbit/reproject/00000.png").unlink()
    shutil.copy(scene.root / "renders/orbit/00000.png", scene.root / "fixed/orbit/reproject/00001.png")
    (scene.images_dir / HELDOUT[0]).write_bytes(b"no picture any more")
    figures, warnings = studio.export()
    for words in ("00000.png is missing since", "00001.png is altered since", HELDOUT[0]):
        assert sum(words in warning for warning in warnings) >= 1, (words, warnings)
    assert (figures["preferences"], figures["approved"], figures["photos"]) == (1, 1, 1)
    assert figures["ratings"] == 3 and figures["left_out"] == 2
    problems = {(problem["path"][-9:], problem["problem"]) for problem in studio.store.verify(studio.scenes)}
    assert problems == {("00000.png", "missing"), ("00001.png", "altered")}

    shutil.rmtree(scene.root)
    figures, warnings = studio.export()
    assert figures["preferences"] == 0 and figures["ratings"] == 3 and len(warnings) >= 3


def test_rated_pictures_outlive_a_new_fix(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    with RatingStore(studio.url, scenes=studio.scenes) as keeping:
        vote_on(keeping, scene, "fix", "ann")
    rated = candidates_of(scene)["orbit", 0][1]
    bytes_before = (scene.root / rated.image_path).read_bytes()
    shutil.rmtree(scene.root / "fixed")
    make_scene(studio.scenes, "court", seed=1000)
    assert hash_file(scene.root / rated.image_path) != rated.sha256
    assert studio.store.verify(studio.scenes) == []
    figures, _ = studio.export()
    assert figures["preferences"] == 1 and figures["left_out"] == 0
    (row,) = studio.table()
    assert bytes_before in (row["image_0"]["bytes"], row["image_1"]["bytes"])


def test_the_card_parses_and_tells_the_counts(studio: Studio) -> None:
    yaml = pytest.importorskip("yaml")
    scene = make_scene(studio.scenes, "court")
    scene.update_info(licence="CC0: no rights reserved")
    vote_on(studio.store, scene, "fix", "ann")
    studio.export()
    text = (studio.out / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    (config,) = matter["configs"]
    assert config["config_name"] == "preferences"
    for file in config["data_files"]:
        assert (studio.out / file["path"]).is_file()
    assert matter["license"] == "other" and matter["size_categories"] == ["n<1K"]
    for words in ("1 votes by 1 raters", "CC0: no rights reserved", "fixer reproject: Apache-2.0", "Known biases"):
        assert words in body, words
    assert body.count("|") % 2 == 0 and "None" not in body.replace("None yet", "")


def test_exports_replace_exports_and_nothing_else(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    vote_on(studio.store, scene, "fix", "ann")
    first, _ = studio.export()
    (studio.out / "images" / "old.png").write_bytes(b"")
    assert studio.export()[0] == first and not (studio.out / "images" / "old.png").exists()
    for wrong in (scene.root, studio.scenes, Path(studio.url.removeprefix("sqlite:///"))):
        with pytest.raises(ConfigError, match="is no export"):
            studio.export(out=str(wrong))
    assert (scene.root / "scene.json").is_file()


def test_a_stopped_export_leaves_the_one_before(studio: Studio) -> None:
    scene = make_scene(studio.scenes, "court")
    studio.export()
    before = (studio.out / "export.json").read_text()
    vote_on(studio.store, scene, "fix", "ann")
    running = export(ExportConfig(str(studio.out), studio.url, str(studio.scenes)))
    next(running), next(running)
    running.close()
    assert (studio.out / "export.json").read_text() == before
    assert [path.name for path in studio.out.parent.iterdir()] == ["first"]


def test_one_scene_of_several_can_be_exported(studio: Studio) -> None:
    for number in range(2):
        vote_on(studio.store, make_scene(studio.scenes, f"scene{number}"), "fix", "ann")
    figures, _ = studio.export(scenes=str(studio.scenes / "scene1"))
    assert figures["preferences"] == figures["ratings"] == 1 and figures["photos"] == 2
    assert {row["scene_id"] for row in studio.table()} == {"scene1"}
    assert "1 votes by 1 raters on 1 pairs" in (studio.out / "README.md").read_text()


def test_nothing_to_export_is_told_in_words(studio: Studio) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        studio.export()
    Scene.create(studio.scenes / "empty")
    with pytest.raises(RatingError, match="Nothing to export"):
        studio.export()
    assert not studio.out.exists()


def test_the_trainer_reads_what_the_export_wrote(studio: Studio) -> None:
    from difix3d.training.dataset import Draw, PairsDataset
    from difix3d.training.pairs import read_pairs

    scene = make_scene(studio.scenes, "court")
    vote_on(studio.store, scene, "fix", "ann")
    studio.export()
    pairs = read_pairs(studio.out)["train"]
    assert len(pairs) == 3 and PairsDataset(pairs)[Draw(0, 0)].pixels.shape == (1, 2, 3, 16, 24)


def test_the_command_line_exports_and_counts(studio: Studio, capsys) -> None:
    from difix3d.cli import main

    vote_on(studio.store, make_scene(studio.scenes, "court"), "fix", "ann")
    arguments = ["--ratings-db", studio.url, "--json"]
    assert main(["export", "--out", str(studio.out), "--scenes", str(studio.scenes), *arguments]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["figures"]["preferences"] == 1 and told["outputs"] == [str(studio.out)]
    assert main(["ratings", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["ratings"] == 1 and figures["win_rates"]["reproject"]["wins"] == 1
    assert main(["export", "--out", str(studio.scenes), "--scenes", str(studio.scenes), *arguments]) == 2
