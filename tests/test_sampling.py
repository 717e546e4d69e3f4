"""What raters can be asked: renders and fixes as a scene lists them, two that differ in pixels at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import SceneError
from difix3d.formats.image import write_rgb
from difix3d.ratings.candidates import Frames, candidates_of
from difix3d.ratings.sampling import questions_of
from difix3d.scene import Scene, hash_file
from difix3d.types import Candidate

FIXERS = ("render", "reproject", "difix")


def frames_of(count: int, fixers: tuple[str, ...] = FIXERS, scene_id: str = "court") -> Frames:
    return {
        ("orbit", index): [
            Candidate(scene_id, "orbit", index, fixer, f"{fixer}/{index:05d}.png", f"{index:032x}{number:032x}")
            for number, fixer in enumerate(fixers)
        ]
        for index in range(count)
    }


def test_identical_pixels_are_never_compared() -> None:
    frames = dict(frames_of(3))
    for key, (render, first, second) in frames.items():
        frames[key] = [render, replace(first, sha256=render.sha256), second, replace(second, fixer="copy of difix")]
    questions = questions_of([frames])
    assert all(a.sha256 != b.sha256 for a, b in questions.values())
    assert len(questions) == 3  # two pictures a frame, so one question
    assert questions_of([{key: candidates[:2] for key, candidates in frames.items()}]) == questions_of([]) == {}


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
