"""What a vote means, that it counts once, and what is said where it makes no sense."""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rated_scene import RENDER_SIZE
from rating_app import ANN, BOB, App, marks

from difix3d.ratings.sampler import Sampler
from difix3d.scene import Scene
from difix3d.ui.rating import routes, screen


@pytest.mark.parametrize(("side", "mine"), [("left", True), ("right", False)])
def test_a_vote_is_stored_in_terms_of_candidates_with_all_that_was_said(app: App, side: str, mine: bool) -> None:
    (pair,) = app.next()["pairs"]
    said = {"tags": ["ghosting", "blur"], "artifact_removal": 2, "faithfulness": 5, "marks": marks(RENDER_SIZE)}
    vote = {"ticket": pair["ticket"], "choice": side, "ms": 2345.6, "left": said, "comment": " <b>so</b> \0 "}
    assert app.post("vote", vote)[0] == 200
    rating = app.stored()[0].rating
    on_left, on_right = (rating.on_a, rating.on_b) if rating.left_is == "a" else (rating.on_b, rating.on_a)
    assert (
        (rating.choice == rating.left_is) is mine
        and rating.seconds == 2.346
        and rating.rater == app.rater(ANN)
        and ANN not in rating.rater
    )
    assert on_left.tags == ("blur", "ghosting") and (on_left.artifact_removal, on_left.faithfulness) == (2, 5)
    assert rating.comment == "<b>so</b>", "kept as it was written: whoever shows it escapes it"
    with Image.open(io.BytesIO(on_left.marks)) as stored:
        bad = np.asarray(stored)
        assert (stored.size, stored.mode) == (RENDER_SIZE, "L")
    assert bad[:8, :12].all() and not bad[8:].any() and not bad[:, 12:].any()
    assert on_right.marks is None and on_right.tags == () and on_right.faithfulness is None


def test_photos_beside_a_pair_without_room_for_small_pictures_are_shown_whole(app: App) -> None:
    """A file where small pictures would go: as a full disk, it lets none be made."""
    scene = Scene(app.studio.scenes_root / "one")
    scene.previews_dir.mkdir()
    (scene.previews_dir / "photos").write_text("")
    (pair,) = app.next()["pairs"]
    assert pair["references"]
    assert all(reference["small"] == reference["whole"] != "" for reference in pair["references"])


def test_grey_marks_and_empty_marks(app: App) -> None:
    first, second = app.next(want=2)["pairs"]
    app.post("vote", {"ticket": first["ticket"], "choice": "tie", "ms": 1, "right": {"marks": marks(RENDER_SIZE, "L")}})
    nothing = io.BytesIO()
    Image.new("RGBA", RENDER_SIZE).save(nothing, "PNG")
    empty = {"marks": base64.b64encode(nothing.getvalue()).decode()}
    app.post("vote", {"ticket": second["ticket"], "choice": "tie", "ms": 1, "right": empty})
    found = [[each.rating.on_a.marks, each.rating.on_b.marks] for each in app.stored()]
    assert sorted(sum(mark is not None for mark in both) for both in found) == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"choice": "c"}, "choice: expected one of"),
        ({"choice": ["left"]}, "choice: expected one of"),
        ({"ms": "soon"}, "ms: expected a time"),
        ({"ms": float("inf")}, "JSON|ms: expected a time"),
        ({"left": []}, None),
        ({"left": [1]}, "left: expected an object"),
        ({"left": {"tags": ["ugly"]}}, "left: expected tags out of floaters"),
        ({"left": {"tags": "blur"}}, "left: expected tags out of"),
        ({"right": {"faithfulness": 6}}, "right: expected faithfulness from 1 to 5"),
        ({"right": {"faithfulness": True}}, "right: expected faithfulness from 1 to 5"),
        ({"left": {"marks": "no base64!"}}, "left: expected marks as a PNG"),
        ({"left": {"marks": base64.b64encode(b"GIF89a").decode()}}, "left: expected marks as a PNG"),
        ({"left": {"marks": marks((9, 9))}}, "expected marks of 24x16 pixels"),
        ({"comment": "x" * 1001}, "comment: expected text of at most 1000"),
        ({"comment": {"a": 1}}, "comment: expected text"),
        ({"ticket": "made up"}, "not shown by this server"),
        ({"ticket": "ü.ü"}, "not shown by this server"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(app: App, change: dict[str, Any], words: str | None) -> None:
    import json

    (pair,) = app.next()["pairs"]
    body = json.dumps({"ticket": pair["ticket"], "choice": "left", "ms": 1000, **change})
    answer = app.client.post("/rate/vote", content=body, headers={"X-Visitor": ANN})
    if words is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 422 and answer.json()["kind"] == "wrong"
    assert any(word in answer.json()["error"] for word in words.split("|")), answer.json()
    assert app.stored() == []


def test_the_same_vote_again_counts_once_also_from_two_threads_at_once(app: App) -> None:
    (pair,) = app.next()["pairs"]
    vote = {"ticket": pair["ticket"], "choice": "right", "ms": 900}
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(app.post("vote", vote))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200} and len({answer["stored"] for _, answer in answers}) == 1
    assert len(app.studio.store.ratings(include_superseded=True)) == 1


def test_pairs_that_the_browser_holds_are_not_given_again(app: App) -> None:
    given = app.next(want=3)["pairs"]
    assert len(given) == 3 and len({pair["place"] for pair in given}) == 3
    more = app.next(want=3, held=[pair["ticket"] for pair in given])["pairs"]
    assert not {pair["place"] for pair in more} & {pair["place"] for pair in given}
    for pair in [*given, *more]:
        assert "orbit" not in pair["left"] and "reproject" not in pair["left"] + pair["right"] + pair["ticket"]


def test_undo_takes_back_once_and_asks_again_with_the_same_sides(app: App) -> None:
    (pair,) = app.next()["pairs"]
    app.post("vote", {"ticket": pair["ticket"], "choice": "left", "ms": 900})
    asked = {"scene": "one", "token": "one press"}
    for _ in range(2):  # the answer was lost, and the browser asks again
        status, answer = app.post("undo", asked)
        assert status == 200
        assert [answer["pair"][side] for side in ("left", "right")] == [pair["left"], pair["right"]]
    assert app.stored() == []
    app.post("vote", {"ticket": answer["pair"]["ticket"], "choice": "tie", "ms": 900})
    assert [each.rating.choice for each in app.stored()] == ["tie"]
    assert app.post("undo", {"scene": "one", "token": "a"}, BOB) == (200, {"pair": None})


def test_why_there_is_no_pair_is_said(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    Scene.create(app.studio.scenes_root / "empty")
    for scene, words in (("", "scene"), ("empty", "Nothing to compare yet")):
        assert words in app.post("next", {"scene": scene})[1]["empty"]
    app.ratings.sampler = Sampler(app.studio.store, app.studio.scenes_root, target_votes=1, make_gold=False)
    app.agree(BOB)
    while pairs := app.next()["pairs"]:
        app.post("vote", {"ticket": pairs[0]["ticket"], "choice": "tie", "ms": 9})
    assert "You have rated every pair" in app.next()["empty"]
    assert "has the votes it needs" in app.next(BOB)["empty"] and len(app.stored()) == 5


def test_a_body_that_is_no_json_or_too_long_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"{", b"[1]", b"\xff"):
        answer = app.client.post("/rate/vote", content=content, headers={"X-Visitor": ANN})
        assert answer.status_code == 422
    monkeypatch.setattr(routes, "_MAX_BODY_BYTES", 100)
    answer = app.client.post("/rate/vote", content=b"x" * 101, headers={"X-Visitor": ANN})
    assert answer.status_code == 422 and "Clear some of the marks" in answer.json()["error"]
    status, answer = app.post("next", {"scene": "one", "held": 3, "want": "all"})
    assert status == 200 and len(answer["pairs"]) == 1


def test_the_guide_has_a_small_picture_of_every_tag() -> None:
    from difix3d.types import ARTIFACT_TAGS

    assert tuple(screen.TAGS) == ARTIFACT_TAGS
    for tag in ARTIFACT_TAGS:
        path = screen.example_path(tag)
        with Image.open(path) as example:
            assert min(example.size) >= 300
        assert path.stat().st_size < 40_000
    html = screen.template({tag: f"media/{tag}" for tag in ARTIFACT_TAGS})
    assert all(f"src='media/{tag}'" in html for tag in ARTIFACT_TAGS)
    # Gradio would take these for its own.
    assert "{" not in html and "${" not in html
