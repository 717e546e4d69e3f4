"""What raters are asked: every pair once, the least-voted first, blind to side and order."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import SceneError
from difix3d.formats.image import write_rgb
from difix3d.ratings.candidates import Frames, candidates_of
from difix3d.ratings.identity import candidate_key, item_key
from difix3d.ratings.sampling import PairToRate, next_pair, progress
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene, hash_file
from difix3d.types import Candidate, Rating

FIXERS = ("render", "reproject", "difix")


def frames_of(count: int, fixers: tuple[str, ...] = FIXERS, scene_id: str = "court") -> Frames:
    return {
        ("orbit", index): [
            Candidate(scene_id, "orbit", index, fixer, f"{fixer}/{index:05d}.png", f"{index:032x}{number:032x}")
            for number, fixer in enumerate(fixers)
        ]
        for index in range(count)
    }


def answer(pair: PairToRate, choice: str, rater: str) -> Rating:
    return Rating(pair.candidate_a, pair.candidate_b, choice, pair.left_is, rater, 1.0)


@pytest.fixture
def store(tmp_path: Path):
    with RatingStore(f"sqlite:///{tmp_path / 'ratings.sqlite'}") as opened:
        yield opened


def test_a_rater_sees_every_pair_once_and_then_none(store: RatingStore) -> None:
    frames = [frames_of(4), frames_of(2, scene_id="park")]
    rng = random.Random(1)
    seen = set()
    while (pair := next_pair(frames, store, "ann", rng)) is not None:
        item = item_key(pair.candidate_a, pair.candidate_b)
        assert item not in seen
        seen.add(item)
        store.add(answer(pair, rng.choice(("a", "tie", "skip")), "ann"), pair.token)
        assert progress(frames, store, "ann").judged == len(seen)
    expected = {item_key(*two) for scene in frames for frame in scene.values() for two in combinations(frame, 2)}
    assert seen == expected and progress(frames, store, "ann").total == len(expected) == 18
    assert progress(frames, store, "bob").judged == 0 and next_pair(frames, store, "bob", rng) is not None

    store.undo("ann")
    assert next_pair(frames, store, "ann", rng) is not None  # what was taken back is asked again


def test_votes_spread_evenly_and_skips_are_no_votes(store: RatingStore) -> None:
    frames = [frames_of(4)]
    rng = random.Random(2)
    for turn in range(30):
        pair = next_pair(frames, store, f"rater{turn % 10}", rng)
        assert pair is not None
        store.add(answer(pair, "b", f"rater{turn % 10}"), pair.token)
        counts = [*store.votes_per_item(["court"]).values()]
        counts += [0] * (12 - len(counts))
        assert max(counts) - min(counts) <= 1
    pair = next_pair(frames, store, "new", rng)
    assert pair is not None
    item = item_key(pair.candidate_a, pair.candidate_b)
    votes = store.votes_per_item(["court"]).get(item, 0)
    store.add(answer(pair, "skip", "new"), pair.token)
    assert store.votes_per_item(["court"]).get(item, 0) == votes


def test_sides_are_balanced_and_order_is_canonical(store: RatingStore) -> None:
    frames = [frames_of(6)]
    rng = random.Random(3)
    draws = [next_pair(frames, store, "ann", rng) for _ in range(1500)]
    pairs = [pair for pair in draws if pair is not None]
    left = np.mean([pair.left_is == "a" for pair in pairs])
    fixer_left = {fixer: np.mean([p.left.fixer == fixer for p in pairs if fixer in (p.left.fixer, p.right.fixer)])
                  for fixer in FIXERS}  # fmt: skip
    # 4.5 standard deviations of a fair coin: a wrong alarm once in 10^5, and the seed is fixed.
    assert abs(left - 0.5) < 4.5 * 0.5 / len(pairs) ** 0.5
    assert all(abs(share - 0.5) < 4.5 * 0.5 / (len(pairs) * 2 / 3) ** 0.5 for share in fixer_left.values())
    for pair in pairs:
        assert candidate_key(pair.candidate_a) < candidate_key(pair.candidate_b)
        assert pair.left != pair.right
    assert len({pair.token for pair in pairs}) == len(pairs)
    assert len({item_key(pair.candidate_a, pair.candidate_b) for pair in pairs}) == 18


def test_identical_pixels_are_never_compared(store: RatingStore) -> None:
    frames = dict(frames_of(3))
    for key, (render, first, second) in frames.items():
        frames[key] = [render, replace(first, sha256=render.sha256), second, replace(second, fixer="copy of difix")]
    rng = random.Random(4)
    pairs = [next_pair([frames], store, "ann", rng) for _ in range(200)]
    assert all(pair is not None and pair.candidate_a.sha256 != pair.candidate_b.sha256 for pair in pairs)
    assert progress([frames], store, "ann").total == 3  # two pictures a frame, so one question
    lonely = {key: candidates[:2] for key, candidates in frames.items()}
    assert next_pair([lonely], store, "ann", rng) is None and progress([lonely], store, "ann").total == 0
    assert next_pair([], store, "ann") is None


def make_scene(folder: Path, frames: int = 3) -> Scene:
    scene = Scene.create(folder / "court")
    rng = np.random.default_rng(0)
    for index in range(frames):
        for suffix in ("", "_alpha"):
            write_rgb(
                scene.renders_dir("orbit") / f"{index:05d}{suffix}.png", rng.integers(0, 255, (8, 12, 3), np.uint8)
            )
    listed = []
    for index in range(frames + 1):
        path = scene.fixed_dir("orbit", "reproject") / f"{index:05d}.png"
        write_rgb(path, rng.integers(0, 255, (8, 12, 3), np.uint8))
        name, sha256 = scene.relative(path), hash_file(path)
        listed.append(asdict(Candidate(scene.id, "orbit", index, "reproject", name, sha256, ("00001.jpg",), seed=3)))
    (scene.fixed_dir("orbit", "reproject") / "candidates.json").write_text(json.dumps(listed))
    return scene


def test_candidates_of_a_scene_are_its_renders_and_fixes(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    frames = candidates_of(scene)
    assert list(frames) == [("orbit", index) for index in range(3)]  # the fix of a frame without render is left out
    for (_, index), (render, fixed) in frames.items():
        assert (render.fixer, render.image_path) == ("render", f"renders/orbit/{index:05d}.png")
        assert render.sha256 == hash_file(scene.root / render.image_path)
        assert (fixed.fixer, fixed.references, fixed.seed) == ("reproject", ("00001.jpg",), 3)
    (scene.root / frames["orbit", 0][1].image_path).unlink()
    changed = np.zeros((9, 9, 3), np.uint8)
    write_rgb(scene.root / frames["orbit", 1][0].image_path, changed)
    again = candidates_of(scene)
    assert len(again["orbit", 0]) == 1
    assert again["orbit", 1][0].sha256 == hash_file(scene.root / frames["orbit", 1][0].image_path)


@pytest.mark.parametrize("broken", ["{", '[{"fixer": "x"}]', '["x"]', "3"])
def test_a_broken_listing_is_told_in_words(tmp_path: Path, broken: str) -> None:
    scene = make_scene(tmp_path)
    (scene.fixed_dir("orbit", "reproject") / "candidates.json").write_text(broken)
    with pytest.raises(SceneError, match=r"fixed/orbit/reproject/candidates\.json: expected a list of candidates"):
        candidates_of(scene)


def test_a_listing_that_leads_out_of_the_scene_is_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    listing = scene.fixed_dir("orbit", "reproject") / "candidates.json"
    entries = json.loads(listing.read_text())
    entries[0]["image_path"] = "../../secret.png"
    listing.write_text(json.dumps(entries))
    with pytest.raises(SceneError, match="leads out"):
        candidates_of(scene)


def test_what_is_being_written_is_not_offered(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    before = candidates_of(scene)
    for finished in (next(scene.root.glob("renders/*")), next(scene.root.glob("fixed/*/*"))):
        shutil.copytree(finished, finished.with_name(f".{finished.name}.abc.partial"))
    assert candidates_of(scene) == before
