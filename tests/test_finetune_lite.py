"""lite learns from an export: from photos always, from what raters preferred besides; stopped or not, gated, listed."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rated_capture import exported, rated_capture
from safetensors.torch import load_file, save_file

from difix3d.errors import CheckpointError, ConfigError, FormatError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.fixers import load_fixer
from difix3d.fixers.listing import about_data, offers, trained, trained_frames, trained_on
from difix3d.fixers.lite.fixer import WEIGHTS, LiteFixer
from difix3d.pairs.read import FRAMES, load_inputs, read_rows
from difix3d.pairs.rows import PairRow
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import canonical_pair
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
from difix3d.stages.finetune import FinetuneConfig, finetune
from difix3d.stages.fixing import FixSession, store_candidate
from difix3d.training import state
from difix3d.training.dataset import Draw
from difix3d.training.lite_data import LiteCrops, PreparedPlanes, inputs_digest
from difix3d.training.pairs import read_pairs
from difix3d.types import Rating, TrainingPair

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of two scenes, one of which is the test split."""
    folder = tmp_path_factory.mktemp("studio")
    url = f"sqlite:///{folder / 'ratings.sqlite'}"
    for seed, name in enumerate(("ball", "other")):
        rated_capture(folder / "scenes", name, url, seed=seed)
    return exported(folder / "scenes", url, folder / "export")


@pytest.fixture(autouse=True)
def lpips(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))


def config(data: Path, tmp_path: Path, **changes) -> FinetuneConfig:
    settings = {"data": str(data), "start": "lite", "out": str(tmp_path / "checkpoints" / "mine"), "steps": 4,
                "crop": 32, "batch_size": 2, "tracker": "none", "max_psnr_drop": 9.0,
                "max_lpips_rise": 1.0, "lpips_weight": 0.0, "validation_pairs": 1, "warmup_steps": 1}  # fmt: skip
    return FinetuneConfig(**{**settings, **changes})


def stopped(settings: FinetuneConfig, step: int) -> None:
    events: Iterator[Event] = finetune(settings)
    for event in events:
        if isinstance(event, Progress) and event.message == "training" and event.done > step:
            break
    events.close()  # type: ignore[attr-defined]


def difference(one: Path, other: Path) -> float:
    ours, theirs = load_file(one / WEIGHTS.name), load_file(other / WEIGHTS.name)
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


def test_an_export_holds_what_a_fixer_was_given(data: Path) -> None:
    rows = read_rows(data, name=FRAMES)
    assert len(rows) == 6 and {row.scene for row in rows} == {"ball", "other"}
    (row,) = [row for row in rows if row.id == "ball-heldout-00001"]
    frame, references = load_inputs(data, row)
    scene = data.parent / "scenes" / "ball"
    session = FixSession(Scene(scene), "lite")
    here = session.frame("heldout", 1)
    assert np.array_equal(frame.rgb, here.rgb) and np.allclose(frame.depth, here.depth, rtol=1e-3)
    assert [one.name for one in references] == [one.name for one in session.chosen(here)]
    fixed, there = LiteFixer().fix(frame, references), session.fix_fully(here)[0]
    assert np.abs(fixed.astype(int) - there).mean() < 0.5  # depth in half floats


def test_a_checkpoint_comes_out_that_lists_and_fixes(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path, lpips_weight=1.0, steps=2, validation_pairs=8)
    events = list(finetune(settings))
    done = events[-1]
    assert isinstance(done, Done)
    figures = done.figures
    # Of one scene: three photos, two approved fixes, and three comparisons, of which one is marked.
    assert (figures["photos"], figures["approved"], figures["comparisons"]) == (3, 2, 3)
    steps = [event for event in events if isinstance(event, Progress) and event.message == "training"]
    assert {"l1", "lpips", "preference", "proximity", "learning_rate"} <= steps[0].figures.keys()
    assert [event.figures["learning_rate"] for event in steps] == pytest.approx([1e-4, 5e-5])  # fading to nothing
    assert figures["validation"]["pairs"] == 3 and figures["gate"]["passed"]

    out = Path(settings.out)
    about = json.loads((out / "difix3d.json").read_text())
    assert about["start"]["name"] == "lite" and len(about["start"]["sha256"]) == 64 and about["licence"] == "Apache-2.0"
    assert about["data"]["frames"] == {_trained_scene(data): ["00000.png", "00004.png", "00008.png"]}
    assert trained_frames([str(out)], _trained_scene(data), {0: "00002.png", 3: "00004.png"}) == {3}
    assert about["data"]["licences"] and str(tmp_path) not in (out / "README.md").read_text()
    fixer = load_fixer(str(out))
    assert fixer.name == "mine" and fixer.settings["weights"].startswith("sha256:")
    assert [offer.label for offer in offers(out.parent) if offer.own] == ["mine (trained here)"]
    assert trained(out.parent)[0].parent == "lite"
    row = read_rows(data, name=FRAMES)[0]
    frame, references = load_inputs(data, row)
    assert not np.array_equal(fixer.fix(frame, references), LiteFixer().fix(frame, references))

    # What its parent was trained on is in it, and so are the licences of that.
    licences = [*about["data"]["licences"], "photos: for looking at only"]
    (out / "difix3d.json").write_text(json.dumps({**about, "data": {**about["data"], "licences": licences}}))
    again = list(finetune(config(data, tmp_path, start=str(out), out=str(tmp_path / "second"), steps=1)))
    assert isinstance(again[-1], Done) and load_fixer(str(tmp_path / "second")).name == "second"
    assert trained_on(str(tmp_path / "second")) == about["data"]["frames"]
    assert about_data(str(tmp_path / "second"))["licences"] == sorted(licences)
    assert licences[-1] in (tmp_path / "second" / "README.md").read_text()


def _trained_scene(data: Path) -> str:
    return read_pairs(data)["train"][0].provenance["scene_id"]


def test_stopped_and_gone_on_it_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    whole = config(data, tmp_path, out=str(tmp_path / "whole"), validation_pairs=0)
    list(finetune(whole))
    halted = config(data, tmp_path, save_every=2, validation_pairs=0)
    stopped(halted, 2)
    assert not Path(halted.out).exists()
    with pytest.raises(ConfigError, match=r"learning_rate was 0.0001 and is 0.001"):
        list(finetune(config(data, tmp_path, save_every=2, validation_pairs=0, learning_rate=1e-3)))
    events = list(finetune(halted))
    assert any(getattr(event, "message", "") == "going on after step 2" for event in events)
    assert difference(Path(whole.out), Path(halted.out)) == 0.0
    assert not Path(f"{halted.out}.training").exists()


def test_a_worse_checkpoint_is_kept_and_not_offered(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path, steps=3, learning_rate=0.03, max_psnr_drop=0.1, max_lpips_rise=0.005)
    events = list(finetune(settings))
    (told,) = [event.message for event in events if isinstance(event, Warned) and "not offered" in event.message]
    gate = events[-1].figures["gate"]
    assert gate["passed"] is False and gate["problems"] and all(problem in told for problem in gate["problems"])
    assert any(allowed in told for allowed in ("0.1 dB are allowed (--max-psnr-drop)", "0.005 is allowed (--max-lpips"))
    out = Path(settings.out)
    (kept,) = trained(out.parent)
    assert gate["problems"][0] in kept.held_back and load_fixer(str(out)).name == "mine"
    assert not [offer for offer in offers(out.parent) if offer.own]
    assert "Not offered among the fixers" in (out / "README.md").read_text()


@pytest.mark.parametrize(("how", "own"), [("chosen", 1), ("other photos", 0), ("in part", 0)])
def test_the_parents_own_output_teaches_nothing(tmp_path: Path, how: str, own: int) -> None:
    """A liked fix by lite itself: left out, and said. Not so one that it does not make of the photos it is given."""
    url = f"sqlite:///{tmp_path / 'ratings.sqlite'}"
    scene = rated_capture(tmp_path / "scenes", "ball", url, raters=0)
    session = FixSession(scene, "lite")
    frame = session.frame("heldout", 0)
    others = [one.name for one in session.ranked(frame)][::-1][:1] if how == "other photos" else None
    fixed, _, used = session.fix_fully(frame, others)
    store_candidate(scene, frame, fixed, session.fixer, used, strength=0.5 if how == "in part" else 1.0)
    candidates = candidates_of(scene)["heldout", 0]
    raw, fix = candidates[0], next(one for one in candidates if one.fixer == "lite")
    a, b = canonical_pair(raw, fix)
    with RatingStore(url, tmp_path / "scenes") as store:
        store.add(Rating(a, b, "a" if fix is a else "b", "a", "ann", 1.0), "one")
    out = exported(tmp_path / "scenes", url, tmp_path / "export")
    events = list(finetune(config(out, tmp_path, steps=1)))
    told = [str(getattr(event, "message", "")) for event in events]
    assert any("1 approved fixes are what the parent makes anyway" in message for message in told) == (own == 1)
    assert events[-1].figures["approved"] == 1 - own and events[-1].figures["comparisons"] == 1


def test_what_planes_are_made_of_is_part_of_what_a_run_is(data: Path, tmp_path: Path) -> None:
    """Depth as well: pictures and names may stay while splats become others."""
    copied = Path(shutil.copytree(data, tmp_path / "copied"))
    rows = read_rows(copied, name=FRAMES)
    before = [inputs_digest(copied, row) for row in rows]
    assert len(set(before)) == len(rows)
    depth = copied / rows[0].depth
    np.save(depth, np.load(depth) * np.float16(1.5))
    after = [inputs_digest(copied, row) for row in rows]
    assert after[0] != before[0] and after[1:] == before[1:]
    first, second = (
        PreparedPlanes(folder, tmp_path).digest("", read_pairs(folder)["train"]) for folder in (data, copied)
    )
    assert first != second


def test_a_marked_region_is_in_every_crop(data: Path, tmp_path: Path) -> None:
    pairs = [pair for pair in read_pairs(data, comparisons=True)["train"] if pair.mask_image is not None]
    planes = PreparedPlanes(data, tmp_path)
    list(planes.prepare(pairs))
    batch = LiteCrops(pairs, planes, 16).batch([Draw(0, number) for number in range(6)])
    assert batch.mask is not None and (batch.mask.flatten(1).amax(1) == 1).all()
    again = LiteCrops(pairs, planes, 16).batch([Draw(0, number) for number in range(6)])
    torch.testing.assert_close(batch.frame, again.frame, rtol=0, atol=0)


class Black:
    """Planes without photos, as large as the frame that a pair's image is named for."""

    def mapped(self, pair: TrainingPair) -> np.ndarray:
        width, height = map(int, pair.image.stem.split("x"))
        return np.zeros((height, width, 5), np.uint8)


def black_crops(sizes: list[str], targets: list[Path]) -> LiteCrops:
    pairs = [TrainingPair(Path(f"{size}.png"), target) for size, target in zip(sizes, targets)]
    return LiteCrops(pairs, Black(), 16)  # type: ignore[arg-type]  # nothing else is asked of them


def test_a_target_of_frames_of_two_sizes_is_at_the_size_of_each(tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    Image.new("RGB", (96, 72), (255, 0, 0)).save(target)
    batch = black_crops(["96x72", "48x36"], [target, target]).batch([Draw(0, 0), Draw(1, 1)])
    assert torch.equal(batch.target, torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 16, 16))


def test_of_many_targets_a_few_stay_in_memory(tmp_path: Path) -> None:
    picture_bytes, count = 3 * 256 * 256, 130
    targets = [tmp_path / f"{number}.png" for number in range(count)]
    for target in targets:
        Image.new("RGB", (256, 256)).save(target)
    crops = black_crops(["256x256"] * count, targets)
    tracemalloc.start()
    try:
        for number in range(count):
            crops.batch([Draw(number, number)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 10 * picture_bytes < kept < 0.6 * count * picture_bytes


def test_planes_that_the_disk_cannot_hold_are_not_begun(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = read_pairs(data, comparisons=True)["train"]
    planes = PreparedPlanes(data, tmp_path / "planes")
    needed = planes.bytes_to_write(pairs)
    list(planes.prepare(pairs))
    written = [path.stat().st_size for path in (tmp_path / "planes").iterdir()]
    assert len(written) == 3 and 0.5 * needed < sum(written) <= needed + 128 * len(written)  # NumPy's headers
    assert planes.bytes_to_write(pairs) == 0

    settings = config(data, tmp_path)
    monkeypatch.setattr(state, "free_disk_bytes", lambda place: needed // 2)
    with pytest.raises(CheckpointError, match=r"are free there.*train on fewer frames"):
        list(finetune(settings))
    assert not list(Path(f"{settings.out}.training").rglob("*.npy"))


def test_planes_of_rows_that_are_gone_go_too(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path, save_every=1)
    folder = Path(f"{settings.out}.training") / "planes"
    stopped(settings, 1)
    used = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for gone in ("0123456789abcdef01234567.npy", ".0123456789abcdef01234567.7-7.partial.npy"):
        np.save(folder / gone, np.zeros(1))
    with pytest.raises(ConfigError, match="that is not this one"):
        list(finetune(replace(settings, learning_rate=0.5)))
    assert used.keys() < {*folder.iterdir()}, "a run that is refused removes nothing"
    stopped(settings, 2)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == used
    state.clear(folder.parent)
    assert not folder.parent.exists()


def test_photos_kept_apart_are_carried_into_no_frame_that_is_trained_on(data: Path, tmp_path: Path) -> None:
    pair = next(pair for pair in read_pairs(data)["train"] if len(_row_of(data, pair).references) > 1)
    references = [data / one.image for one in _row_of(data, pair).references]
    planes = {}
    for name, apart in (("all", set()), ("left", {references[0]})):
        prepared = PreparedPlanes(data, tmp_path / name)
        (tmp_path / name).mkdir()
        prepared.leave_out_photos(apart, [pair])
        list(prepared.prepare([pair]))
        planes[name] = prepared.planes(pair)[1]
    assert len(planes["all"]) == len(references)
    np.testing.assert_array_equal(planes["left"], planes["all"][1:])


def _row_of(data: Path, pair: TrainingPair) -> PairRow:
    return next(row for row in read_rows(data, name=FRAMES) if data / row.image == pair.image)


def test_what_cannot_be_trained_on_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="depth and cameras that lite is trained with"):
        lone = tmp_path / "lone"
        lone.mkdir()
        (lone / "difix.json").write_text(json.dumps({"train": {}}))
        list(finetune(config(lone, tmp_path)))
    with pytest.raises(ConfigError, match="multiple of 16"):
        list(finetune(config(data, tmp_path, crop=24)))
    with pytest.raises(ConfigError, match="accumulation is 2"):
        list(finetune(config(data, tmp_path, accumulation=2)))
    broken = tmp_path / "broken"
    broken.mkdir()
    save_file({"x": torch.zeros(1)}, broken / WEIGHTS.name)
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        list(finetune(config(data, tmp_path, start=str(broken))))
