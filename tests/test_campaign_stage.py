"""Old against new: both fix the same held-out views, raters are asked of these first and blind, and who won is told."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from rated_capture import rated_capture
from safetensors.torch import load_file, save_file

from difix3d.atomic import write_json
from difix3d.cli import main
from difix3d.errors import ConfigError
from difix3d.events import Done, Event, Warned
from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.formats.camera_path import read_camera_path
from difix3d.ratings.campaigns import entered, outcomes
from difix3d.ratings.sampler import Sampler
from difix3d.ratings.store import RatingStore
from difix3d.ratings.summary import wilson_interval
from difix3d.scene import Scene
from difix3d.stages.campaign import CampaignConfig, campaign
from difix3d.types import Rating


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """A scene with three held-out views and fixes of them, and a checkpoint that is lite, a little changed."""
    rated_capture(tmp_path / "scenes", "ball", url(tmp_path), raters=0)
    checkpoint(tmp_path / "checkpoints" / "mine", 0.02)
    return tmp_path


def url(studio: Path) -> str:
    return f"sqlite:///{studio / 'ratings.sqlite'}"


def checkpoint(folder: Path, changed_by: float, frames: dict[str, list[str]] | None = None) -> None:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(WEIGHTS)
    changed = {
        name: value + changed_by * torch.randn(value.shape, generator=generator).to(value.dtype)
        for name, value in weights.items()
    }
    save_file(changed, folder / WEIGHTS.name)
    about = {"licence": "Apache-2.0", "start": {"name": "lite"}, "data": {"frames": frames or {}}}
    (folder / "difix3d.json").write_text(json.dumps(about))


def run(studio: Path, **changes) -> list[Event]:
    settings = {
        "new": str(studio / "checkpoints" / "mine"),
        "scenes": str(studio / "scenes"),
        "ratings_db": url(studio),
    }
    return list(campaign(CampaignConfig(**{**settings, **changes})))


def test_both_are_asked_about_first_and_blind_and_the_outcome_is_told(studio: Path, capsys) -> None:
    done = run(studio)[-1]
    assert isinstance(done, Done)
    assert done.figures == {"new": "mine", "old": "lite", "scenes": 1, "frames": 3, "trained_on": 0, "identical": 0}
    with RatingStore(url(studio), studio / "scenes") as store:
        new_is = entered(store)
        assert len(new_is) == 3
        sampler = Sampler(store, studio / "scenes", make_gold=False, rng=random.Random(0))
        scenes = [Scene(studio / "scenes" / "ball")]
        lefts = set()
        for rater, wanted in (("ann", "new"), ("bob", "new"), ("cid", "tie")):
            for _ in range(3):
                pair = sampler.next(rater, scenes)
                assert pair is not None
                sides = {pair.candidate_a.fixer: "a", pair.candidate_b.fixer: "b"}
                assert set(sides) == {"mine", "lite"}, "before the other questions of the frame"
                lefts.add(pair.left.fixer)
                choice = sides["mine"] if wanted == "new" else wanted
                sampler.vote(Rating(pair.candidate_a, pair.candidate_b, choice, pair.left_is, rater, 1.0), pair.token)
        assert lefts == {"mine", "lite"}
        after = sampler.next("ann", scenes)
        assert after is not None and {after.candidate_a.fixer, after.candidate_b.fixer} != {"mine", "lite"}
        (told,) = outcomes(new_is, store.ratings())
    assert (told["new"], told["old"], told["votes"], told["frames"]) == ("mine", "lite", 9, 3)
    assert (told["wins"], told["losses"], told["ties"]) == (6, 0, 3)
    assert told["win_rate"] == pytest.approx(5 / 6, abs=1e-4)  # a tie is half a win
    assert told["interval"] == pytest.approx(wilson_interval(5 / 6, 3), abs=1e-4)  # three frames, not nine votes
    assert told["new_weights"].startswith("sha256:")

    assert main(["ratings", "--ratings-db", url(studio), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["campaigns"] == [told]


def test_asked_again_nothing_is_entered_twice(studio: Path) -> None:
    run(studio)
    listings = sorted((studio / "scenes").glob("ball/fixed/heldout/*/candidates.json"))
    again = run(studio)[-1]
    assert again.figures["frames"] == 3
    with RatingStore(url(studio)) as store:
        assert len(entered(store)) == 3
    assert sorted((studio / "scenes").glob("ball/fixed/heldout/*/candidates.json")) == listings


def test_equal_pixels_are_no_question(studio: Path) -> None:
    checkpoint(studio / "checkpoints" / "same", 0.0)
    done = run(studio, new=str(studio / "checkpoints" / "same"))[-1]
    assert done.figures["identical"] == 3 and done.figures["frames"] == 0
    with RatingStore(url(studio)) as store:
        assert entered(store) == {}


def asked(studio: Path) -> set[tuple[str, int]]:
    """(scene, frame) of what is in the campaign."""
    with RatingStore(url(studio), studio / "scenes") as store:
        sampler = Sampler(store, studio / "scenes", make_gold=False, rng=random.Random(0))
        scenes = [Scene(path.parent) for path in (studio / "scenes").glob("*/scene.json")]
        new_is, found = entered(store), set()
        for _ in new_is:
            pair = sampler.next("ann", scenes)
            assert pair is not None and {pair.candidate_a.fixer, pair.candidate_b.fixer} == {"seen", "lite"}
            found.add((pair.candidate_a.scene_id, pair.candidate_a.frame_index))
            sampler.vote(Rating(pair.candidate_a, pair.candidate_b, "tie", pair.left_is, "ann", 1.0), pair.token)
    return found


def test_frames_that_were_trained_on_are_left_out_where_others_are_there(studio: Path) -> None:
    rated_capture(studio / "scenes", "other", url(studio), raters=0, seed=1)
    checkpoint(studio / "checkpoints" / "seen", 0.02, {"ball": ["00004.png", "orbit/0"]})
    events = run(studio, new=str(studio / "checkpoints" / "seen"))
    assert events[-1].figures["frames"] == 5 and events[-1].figures["trained_on"] == 0
    assert not any(isinstance(event, Warned) for event in events)
    assert asked(studio) == {("ball", 0), ("ball", 2), ("other", 0), ("other", 1), ("other", 2)}
    # Few that were asked for are not few that there are.
    events = run(studio, new=str(studio / "checkpoints" / "seen"), frames=1)
    assert events[-1].figures["frames"] == 2 and not any(isinstance(event, Warned) for event in events)


def test_of_one_small_scene_they_are_asked_about_and_that_is_said(studio: Path) -> None:
    checkpoint(studio / "checkpoints" / "seen", 0.02, {"ball": ["00000.png", "00004.png"]})
    events = run(studio, new=str(studio / "checkpoints" / "seen"))
    assert events[-1].figures["frames"] == 3 and events[-1].figures["trained_on"] == 2
    (told,) = [event.message for event in events if isinstance(event, Warned)]
    assert told.startswith("2 of 3 views were trained on") and "1 others were kept out, and 4 are needed" in told
    assert asked(studio) == {("ball", 0), ("ball", 1), ("ball", 2)}


def test_a_fit_that_kept_out_other_photos_is_rendered_anew(studio: Path) -> None:
    scene = Scene(studio / "scenes" / "ball")
    everything = sorted(path.name for path in scene.images_dir.iterdir())
    heldout = ["00001.png", "00004.png"]
    train = [name for name in everything if name not in heldout]
    write_json(scene.split_path, {"train": train, "heldout": heldout})
    done = run(studio)[-1]
    assert done.figures["frames"] == 2
    assert list(read_camera_path(scene.trajectory_path("heldout")).view_names) == heldout
    # Renders without splats cannot be made anew: those of photos that are references now are passed over.
    write_json(scene.split_path, {"train": everything[1:], "heldout": everything[:1]})
    scene.splats_path.unlink()
    with pytest.raises(ConfigError, match="other photos than are kept out now"):
        run(studio)


def test_what_cannot_be_compared_is_told(studio: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint that was trained here"):
        run(studio, new="reproject")
    (studio / "checkpoints" / "mine" / "difix3d.json").unlink()
    with pytest.raises(ConfigError, match="--old"):
        run(studio)
    Scene.create(studio / "scenes" / "empty")
    events = run(studio, old="reproject")
    assert any(isinstance(event, Warned) and "no photo was kept out" in event.message for event in events)
    assert events[-1].figures["scenes"] == 1
    with pytest.raises(ConfigError, match="None of 1 scenes"):
        run(studio, old="reproject", scenes=str(studio / "scenes" / "empty"))
