"""Old against new: both fix the same held-out views, raters are asked of these first and blind, and who won is told."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from rated_capture import rated_capture
from safetensors.torch import load_file, save_file

from difix3d.cli import main
from difix3d.errors import ConfigError
from difix3d.events import Done, Event, Warned
from difix3d.fixers.lite.fixer import WEIGHTS
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


def checkpoint(folder: Path, changed_by: float) -> None:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(WEIGHTS)
    changed = {
        name: value + changed_by * torch.randn(value.shape, generator=generator).to(value.dtype)
        for name, value in weights.items()
    }
    save_file(changed, folder / WEIGHTS.name)
    (folder / "difix3d.json").write_text(json.dumps({"licence": "Apache-2.0", "start": {"name": "lite"}}))


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
    assert done.figures == {"new": "mine", "old": "lite", "scenes": 1, "frames": 3, "identical": 0}
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
