"""Questions with a known answer: made of real pictures, the right way round, and only where they are fair."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rated_scene import HELDOUT, make_scene

from difix3d.formats.image import read_rgb, write_rgb
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.gold import KINDS, corrupt, make_gold, psnr, read_gold
from difix3d.ratings.identity import candidate_key
from difix3d.scene import Scene, hash_file


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path, "court")


def test_gold_is_of_every_kind_and_its_answer_is_true(scene: Scene) -> None:
    pairs = make_gold(scene, candidates_of(scene))
    assert {pair.kind for pair in pairs} == set(KINDS) and len(pairs) <= 48
    for pair in pairs:
        assert candidate_key(pair.a) < candidate_key(pair.b)
        pictures = {side: read_rgb(scene.inside(each.image_path)) for side, each in (("a", pair.a), ("b", pair.b))}
        assert all(hash_file(scene.inside(each.image_path)) == each.sha256 for each in (pair.a, pair.b))
        assert pair.a.image_path != pair.b.image_path  # so that addresses do not give it away
        if pair.kind == "identical":
            assert pair.expected == "tie" and (pictures["a"] == pictures["b"]).all()
        elif pair.kind == "photo":
            photo = scene.images_dir / HELDOUT[pair.a.frame_index]
            true = read_rgb(photo, (pictures["a"].shape[1], pictures["a"].shape[0]))
            assert (pictures[pair.expected] == true).all()
            assert pair.a.references == ("00003.png",)  # a photo can be shown beside, and not the answer
        else:
            clean, worse = pictures.pop(pair.expected), next(iter(pictures.values()))
            assert (worse == corrupt(clean, int(hash_of(pair, pair.expected)[:8], 16))).all()
            assert psnr(clean, worse) < 25
    assert candidates_of(scene) == candidates_of(scene) and make_gold(scene, candidates_of(scene)) == pairs
    assert read_gold(scene) == pairs


def hash_of(pair, side: str) -> str:
    return (pair.a if side == "a" else pair.b).sha256


def test_gold_of_what_is_no_longer_there_goes(scene: Scene) -> None:
    before = {pair.a.extra["made_from"] for pair in make_gold(scene, candidates_of(scene))}
    render = scene.renders_dir("orbit") / "00002.png"
    write_rgb(render, np.zeros((16, 24, 3), np.uint8))
    fixed = scene.fixed_dir("orbit", "reproject") / "00002.png"
    fixed.unlink()
    after = make_gold(scene, candidates_of(scene))
    now = {each.sha256 for frame in candidates_of(scene).values() for each in frame}
    assert before - now and {each.extra["made_from"] for pair in after for each in (pair.a, pair.b)} <= now
    (scene.root / "gold" / "gold.json").write_text("{")
    assert read_gold(scene) == [] and len(make_gold(scene, candidates_of(scene))) == len(after)


def test_a_render_that_looks_like_its_photo_is_no_fair_question(scene: Scene) -> None:
    for index, name in enumerate(HELDOUT):
        write_rgb(scene.renders_dir("heldout") / f"{index:05d}.png", read_rgb(scene.images_dir / name, (24, 16)))
    assert "photo" not in {pair.kind for pair in make_gold(scene, candidates_of(scene))}


def test_a_scene_without_held_out_photos_has_the_other_kinds(scene: Scene) -> None:
    scene.trajectory_path("heldout").unlink()
    assert {pair.kind for pair in make_gold(scene, candidates_of(scene), most=4)} == {"corrupted", "identical"}
    assert len(read_gold(scene)) == 4 and make_gold(scene, {}) == []


def test_of_a_scene_that_is_deleted_meanwhile_nothing_comes_back(scene: Scene) -> None:
    frames = candidates_of(scene)
    shutil.rmtree(scene.root)
    assert make_gold(scene, frames) == [] and not scene.root.exists()
