"""Choosing references of a frame: what each covers, previews that are the fix itself, and never an old answer."""

from __future__ import annotations

import io
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from fitted_scene import render_trajectory, write_fitted_scene
from PIL import Image

from difix3d.errors import ConfigError, FixerError
from difix3d.fixers.base import Weightless
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.fixers.stepwise import SupersededError
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.scene import Scene
from difix3d.stages import choosing
from difix3d.stages.choosing import Chooser
from difix3d.stages.fixing import FixSession, store_candidate, trust_path
from difix3d.ui import fix, live
from difix3d.ui.shared import Shared
from difix3d.ui.studio import Studio, owner_key

VISITOR = "a-visitor-of-this-test"
QUESTION = ("scene", "walk", 0, "reproject")


class Slow(Weightless):
    """A fixer that fixes at once or not at all."""

    name, licence, max_references, needs_depth = "slow", "CC0-1.0", 2, False

    def __init__(self) -> None:
        self.settings: dict = {}

    def fix(self, frame, references, *, seed=0):
        return frame.rgb


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("choosing") / "scene")
    render_trajectory(scene)
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scenes" / "scene")
    return Scene(tmp_path / "scenes" / "scene")


@pytest.fixture
def chooser(scene: Scene) -> Chooser:
    return Chooser(FixSession(scene, ReprojectFixer()))


@pytest.fixture
def client(scene: Scene) -> TestClient:
    app = FastAPI()
    live.mount(app, Studio(scene.root.parent))
    return TestClient(app)


def asked(**changes) -> dict:
    body = {"scene": "scene", "trajectory": "walk", "index": 0, "fixer": "reproject", "chosen": ["00001.png"]}
    return body | {"page": "p", "turn": 1} | changes


def post(client: TestClient, visitor: str = VISITOR, **changes):
    return client.post(f"/{live.ROUTE}", json=asked(**changes), headers={"X-Visitor": visitor})


def picture(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(address.removeprefix("data:image/png;base64,")))))


def test_photos_are_offered_chosen_ones_first_with_what_they_cover(chooser: Chooser) -> None:
    offered = chooser.offered("walk", 0, 5)
    frame = chooser.session.frame("walk", 0)
    chosen, ranked = ([one.name for one in found(frame)] for found in (chooser.session.chosen, chooser.session.ranked))
    assert 0 < len(chosen) < 5 and [one.name for one in offered if one.chosen] == chosen
    assert [one.name for one in offered] == [*chosen, *(name for name in ranked if name not in chosen)][:5]
    assert chooser.offered("walk", 0, 1) == offered[:1]
    assert all(one.covered is not None and 0 <= one.covered <= 1 for one in offered)
    assert offered[0].covered > 0.05 and offered[0].covered > offered[-1].covered


def test_a_preview_is_the_fix_itself(chooser: Chooser) -> None:
    frame = chooser.session.frame("walk", 0)
    names = [one.name for one in chooser.session.ranked(frame)[:2]]
    preview = chooser.preview("walk", 0, names)
    fixed = chooser.session.fix(frame, names)
    assert np.array_equal(preview.rgb, fixed.rgb) and np.array_equal(preview.trust, fixed.trust)
    assert preview.references == fixed.references == tuple(names)
    one = chooser.preview("walk", 0, names[:1])
    assert 0 < one.covered <= preview.covered <= 1
    assert np.array_equal(chooser.preview("walk", 0, []).rgb, frame.rgb)


def test_large_frames_are_previewed_small(chooser: Chooser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "PREVIEW_SIZES_PX", (48, 32))
    preview = chooser.preview("walk", 0, ["00001.png"])
    assert preview.rgb.shape == (36, 48, 3) and preview.trust.shape == (36, 48)


def test_where_a_preview_was_slow_the_next_is_smaller(chooser: Chooser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "PREVIEW_SIZES_PX", (96, 48))
    monkeypatch.setattr(choosing, "_PATIENCE_S", -1.0)
    widths = [chooser.preview("walk", index, ["00001.png"]).rgb.shape[1] for index in (0, 0, 0, 1)]
    assert widths == [96, 48, 48, 96]


def test_a_frame_that_is_rendered_again_is_previewed_anew(chooser: Chooser, scene: Scene) -> None:
    before = chooser.preview("walk", 0, []).rgb
    write_rgb(scene.renders_dir("walk") / "00000.png", 255 - before)
    assert np.array_equal(chooser.preview("walk", 0, []).rgb, 255 - before)


def test_what_cannot_be_previewed_is_refused(chooser: Chooser, scene: Scene) -> None:
    with pytest.raises(ConfigError, match="kept out"):
        chooser.preview("walk", 0, ["00004.png"])
    with pytest.raises(SupersededError):
        chooser.preview("walk", 0, ["00001.png"], lambda: True)
    slow = Chooser(FixSession(scene, Slow()))
    assert not slow.previews and chooser.previews
    with pytest.raises(FixerError, match="too long to follow clicks"):
        slow.preview("walk", 0, ["00001.png"])


def test_the_page_gets_the_fix_and_what_to_say_of_it(client: TestClient, chooser: Chooser) -> None:
    answer = post(client, chosen=["00001.png", "00002.png"])
    assert answer.status_code == 200
    found, expected = answer.json(), chooser.preview("walk", 0, ["00001.png", "00002.png"])
    assert found["frame"] == ["scene", "walk", 0] and found["before"].startswith("media/")
    assert np.array_equal(picture(found["after"]), expected.rgb)
    assert np.abs(picture(found["trust"]) / 255.0 - expected.trust).max() < 0.003
    assert "photos 1, 2" in found["said"] and f"{expected.covered:.0%} of the frame" in found["said"]
    assert "press the button to keep it" in found["said"] and found["caption"].endswith("not kept yet")
    assert not list(chooser.session.scene.root.glob("fixed/*/*")), "a preview is no candidate"


def test_an_older_request_is_not_worked_on(client: TestClient) -> None:
    assert post(client, turn=5).status_code == 200
    assert post(client, turn=4).status_code == 409
    assert post(client, turn=4, page="another").status_code == 200
    assert post(client, turn=4, visitor="another-visitor-here").status_code == 200


def test_what_is_asked_wrongly_is_said_in_words(client: TestClient) -> None:
    for changes, status, words in (
        ({"chosen": ["00004.png"]}, 422, "kept out"),
        ({"chosen": "00001.png"}, 422, "photos"),
        ({"chosen": ["x"] * 50}, 422, "photos"),
        ({"index": 99}, 410, "no render of frame 99"),
        ({"index": "0"}, 422, "number"),
        ({"trajectory": "../.."}, 410, "../.."),
        ({"fixer": "photoshop"}, 410, "fixer"),
        ({"scene": "elsewhere"}, 410, "no scene"),
        ({"visitor": "short"}, 422, "Reload"),
    ):
        answer = post(client, **{"turn": 100, **changes})
        assert answer.status_code == status and words in answer.json()["error"], (changes, answer.text)
    big = client.post(f"/{live.ROUTE}", content=b"[" * 100_000, headers={"X-Visitor": VISITOR})
    assert big.status_code == 422


def test_somebody_elses_scene_is_not_there(scene: Scene) -> None:
    app, studio = FastAPI(), Studio(scene.root.parent, public=True)
    live.mount(app, studio)
    scene.update_info(owner="somebody")
    assert post(TestClient(app)).status_code == 410


def offered(chosen: list[str], most: int = 4) -> dict[str, object]:
    """What the page says of its photos."""
    return {"asked": [*QUESTION], "most": most, "photos": [], "chosen": chosen}


def presses(studio: Studio, before: tuple[str | None, str | None] = (None, None)) -> Any:
    """What pressing Fix shows: left, right and the comparison. before: what left and right show already."""
    shared = Shared(studio, *[None] * 4)  # type: ignore[arg-type]
    made, shown = fix._fixer(shared), fix._shower(shared)

    def press(who: dict[str, str], *asked: Any, then: tuple[str, int] | None = None) -> tuple[Any, ...]:
        """then: the frame that they have gone on to meanwhile."""
        wanted = fix.Wanted(*asked)
        return shown(who, wanted.scene_id, *(then or asked[1:3]), *before, wanted, made(who, wanted))

    return press


def test_a_fix_that_comes_late_does_not_take_anybody_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(fix.gr, "Info", lambda message, **_: said.append(message))
    studio = Studio(scene.root.parent, f"sqlite:///{scene.root.parent / 'ratings.sqlite'}")
    press = presses(studio)
    asked = [*QUESTION, offered(["00001.png"])]
    for elsewhere in (("walk", 1), ("orbit", 0)):
        assert press({"id": VISITOR}, *asked, then=elsewhere) == (gr.skip(),) * 3
    assert said == ["Frame 0 of walk is fixed."] * 2
    assert len(list(scene.root.glob("fixed/walk/*/candidates.json"))) == 1, "kept all the same"
    *boxes, shown = press({"id": VISITOR}, *asked)
    assert shown["frame"][1:] == ["walk", 0] and "render" in shown["labels"]
    kept = boxes[1].value
    *_, shown = presses(studio, before=(kept, kept))({"id": VISITOR}, *asked)
    assert shown["labels"] == ["reproject"] * 2, "what was chosen to the left since the page has read the fix stays"


def test_a_fix_is_kept_by_whom_the_scene_belongs_to_and_only_shown_to_others(scene: Scene, chooser: Chooser) -> None:
    studio = Studio(scene.root.parent, f"sqlite:///{scene.root.parent / 'ratings.sqlite'}", public=True)
    press = presses(studio)
    asked = [*QUESTION, offered(["00001.png"])]
    *boxes, shown = press({"id": VISITOR}, *asked)
    expected = chooser.session.fix(chooser.session.frame("walk", 0), ["00001.png"])
    assert np.array_equal(picture(shown["after"]), expected.rgb) and shown["before"].startswith("media/")
    assert np.abs(picture(shown["trust"]) / 255.0 - expected.trust).max() < 0.003
    assert shown["caption"] == "render and reproject with photo 1, not kept" and boxes == [gr.skip(), gr.skip()]
    app = FastAPI()
    live.mount(app, studio)
    assert "Make one of your own" in post(TestClient(app)).json()["said"]
    assert not list(scene.root.glob("fixed/*/*"))

    scene.update_info(owner=owner_key(VISITOR))
    *_, kept = press({"id": VISITOR}, *asked)
    assert kept["after"].startswith("media/") and len(list(scene.root.glob("fixed/walk/*/candidates.json"))) == 1


def test_a_fixer_whose_weights_came_since_chooses_photos_itself(scene: Scene, chooser: Chooser) -> None:
    """Until they are here nobody knows that they look at photos, and the page offers none. So does any fixer whose
    photos could not be offered."""
    studio = Studio(scene.root.parent, f"sqlite:///{scene.root.parent / 'ratings.sqlite'}", public=True)
    press = presses(studio)
    expected = chooser.session.fix(chooser.session.frame("walk", 0))
    # Not known to look at any; could not be offered, as on a full disk; offered for the frame before.
    for photos in (offered([], most=0), None, {**offered(["00001.png"]), "asked": ["scene", "walk", 1, "reproject"]}):
        *_, shown = press({"id": VISITOR}, *QUESTION, photos)
        assert expected.references and np.array_equal(picture(shown["after"]), expected.rgb), photos
    *_, shown = press({"id": VISITOR}, *QUESTION, offered([]))
    assert "no photos" in shown["caption"], "who takes all photos out gets none"


def test_trust_is_kept_beside_a_fix_and_is_no_candidate(chooser: Chooser, scene: Scene) -> None:
    frame = chooser.session.frame("walk", 0)
    fixed = chooser.session.fix(frame, ["00001.png"])
    by = chooser.session.fixer, fixed.references
    candidate = store_candidate(scene, frame, fixed.rgb, *by, trust=fixed.trust, strength=fixed.strength)
    kept = np.asarray(Image.open(trust_path(scene.inside(candidate.image_path))))
    assert np.abs(kept / 255.0 - fixed.trust).max() < 0.003
    assert np.array_equal(read_rgb(scene.inside(candidate.image_path)), fixed.rgb)
