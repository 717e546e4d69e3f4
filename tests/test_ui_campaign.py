"""What the Dataset step says of checkpoints that were trained here, and of new against old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rated_scene import camera_at
from safetensors.numpy import save_file

from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.formats.camera_path import write_camera_path
from difix3d.ratings.campaigns import Match, enter
from difix3d.ratings.identity import canonical_pair, item_key
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
from difix3d.types import Candidate, Rating, Trajectory
from difix3d.ui.campaign import outcomes_html, trained_html
from difix3d.ui.studio import Studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "scenes", f"sqlite:///{tmp_path / 'ratings.sqlite'}")


def checkpoint(studio: Studio, name: str, problems: list[str] | None) -> None:
    folder = studio.checkpoints_root / name
    folder.mkdir(parents=True)
    save_file({}, folder / WEIGHTS.name)
    figures = {"gate": {"problems": problems or [], "passed": None if problems is None else not problems}}
    (folder / "difix3d.json").write_text(json.dumps({"start": {"name": "lite"}, "figures": figures}))


def test_who_is_held_back_is_named_with_the_reason(studio: Studio) -> None:
    assert trained_html(studio) == ""
    checkpoint(studio, "good", [])
    checkpoint(studio, "bad", ["PSNR fell by 0.31 dB <b>"])
    told = trained_html(studio)
    assert "Trained here: good." in told and "Kept, but not offered: bad. PSNR fell by 0.31 dB &lt;b&gt;." in told
    checkpoint(studio, "unseen", None)
    assert "Not measured at kept-out photos: unseen." in trained_html(studio)
    labels = [offer.label for offer in studio.fixers() if offer.own]
    assert labels == ["good (trained here)", "unseen (trained here)"]


def made(fixer: str, index: int) -> Candidate:
    return Candidate("s", "heldout", index, fixer, f"{fixer}-{index}.png", f"{index}{ord(fixer[0]):02x}".rjust(64, "0"))


def votes(store: RatingStore, choices: list[str]) -> None:
    """One on each frame: new | old | tie."""
    for index, wanted in enumerate(choices):
        new, old = made("<i>mine", index), made("lite", index)
        a, b = canonical_pair(new, old)
        side = {"new": "a" if a is new else "b", "old": "b" if a is new else "a"}
        enter(store, [Match(item_key(a, b), a, b, side["new"])])
        store.add(Rating(a, b, side.get(wanted, wanted), "a", "ann", 1.0), f"vote{index}")


def test_new_against_old_is_told_with_its_interval(studio: Studio) -> None:
    assert outcomes_html(studio, None) == ""
    votes(studio.store, ["new"] * 10 + ["tie", "old"])
    told = outcomes_html(studio, None)
    assert "&lt;i&gt;mine against lite" in told and "88% of 12 views" in told
    assert "12 votes: 10 for new, 1 for old, 1 equal. The new one is better." in told
    assert outcomes_html(studio, "another").startswith("<p class='dx-note'>No votes on new against old yet")


def test_views_that_were_trained_on_are_said(studio: Studio) -> None:
    votes(studio.store, ["new"] * 3)
    assert "trained on" not in outcomes_html(studio, None)
    names = ("00001.png", "00004.png", "00007.png")
    cameras = tuple(camera_at(20.0 * number) for number in range(3))
    path = Scene.create(studio.scenes_root / "s").trajectory_path("heldout")
    write_camera_path(path, Trajectory("heldout", cameras, view_names=names))
    folder = studio.checkpoints_root / "<i>mine"
    folder.mkdir(parents=True)
    frames = {"s": ["00001.png", "00002.png", "00007.png"], "other": ["00004.png"]}
    (folder / "difix3d.json").write_text(json.dumps({"data": {"frames": frames}}))
    assert "2 of 3 views were trained on, which favours the new one." in outcomes_html(studio, None)


def test_few_votes_decide_nothing(studio: Studio) -> None:
    votes(studio.store, ["new", "new"])
    assert "Not decided yet" in outcomes_html(studio, "s")
