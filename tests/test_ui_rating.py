"""The rating screen's addresses: what a vote means, that it counts once, and what is said where it cannot."""

from __future__ import annotations

import base64
import io
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import postgresql_server as postgresql
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from rated_scene import RENDER_SIZE, make_scene, picture
from sqlalchemy import event

from difix3d.errors import RatingError
from difix3d.formats.image import write_rgb
from difix3d.ratings import database
from difix3d.ratings import store as store_module
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.sampler import Sampler
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.scene import Scene
from difix3d.ui.rating import people, routes, screen
from difix3d.ui.rating.limits import Buckets
from difix3d.ui.rating.ticket import Ticket, seal, unseal
from difix3d.ui.studio import Studio, owner_key

ANN, BOB = "ann-who-has-a-long-id", "bob-who-has-a-long-id"
AGREED = {"version": people.CONSENT_VERSION, "licence": people.LICENCE}


@dataclass
class App:
    """The addresses over a folder of scenes, as a browser calls them."""

    folder: Path
    public: bool = False
    url: str = ""

    def __post_init__(self) -> None:
        self.studio = Studio(
            self.folder / "scenes", self.url or f"sqlite:///{self.folder / 'ratings.sqlite'}", public=self.public
        )
        api = FastAPI()
        self.ratings = routes.mount(api, self.studio)
        self.client = TestClient(api)

    def post(self, action: str, body: Any, visitor: str = ANN) -> tuple[int, dict[str, Any]]:
        answer = self.client.post(f"/rate/{action}", json=body, headers={"X-Visitor": visitor})
        return answer.status_code, answer.json()

    def agree(self, visitor: str = ANN, name: str = "") -> None:
        status, answer = self.post("agree", {**AGREED, "name": name}, visitor)
        assert status == 200, answer

    def next(self, visitor: str = ANN, held: list[str] | None = None, **more: Any) -> dict[str, Any]:
        status, answer = self.post("next", {"scene": "one", "held": held or [], **more}, visitor)
        assert status == 200, answer
        return answer

    def rater(self, visitor: str) -> str:
        return people.Who(visitor, {}).rater(self.studio)

    def stored(self) -> list[Any]:
        return self.studio.store.ratings(purposes=(RATE, GOLD, REPEAT))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    made = App(tmp_path)
    make_scene(made.studio.scenes_root, "one")
    made.agree()
    yield made
    made.studio.store.close()


def marks(size: tuple[int, int], mode: str = "RGBA") -> str:
    """What a browser's canvas gives: white on nothing in the upper left quarter."""
    image = Image.new(mode, size, 0)
    image.paste((255, 255, 255, 255) if mode == "RGBA" else 255, (0, 0, size[0] // 2, size[1] // 2))
    written = io.BytesIO()
    image.save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


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


def test_a_vote_on_a_pair_of_before_a_restart_is_stored(app: App, tmp_path: Path) -> None:
    (pair,) = app.next()["pairs"]
    again = App(tmp_path)
    status, answer = again.post("vote", {"ticket": pair["ticket"], "choice": "both_bad", "ms": 500})
    assert status == 200, answer
    assert [each.rating.choice for each in app.stored()] == ["both_bad"]


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


def test_a_deleted_scene_and_a_changed_picture_are_told_and_not_counted(app: App) -> None:
    scene = app.studio.open_scene("one", ANN)
    pairs = app.next(want=3)["pairs"]
    frame = unseal(pairs[0]["ticket"], app.studio.secret)
    fix = candidates_of(scene)[frame.trajectory, frame.frame_index][1]
    write_rgb(scene.inside(fix.image_path), picture(999, RENDER_SIZE))
    status, answer = app.post("vote", {"ticket": pairs[0]["ticket"], "choice": "left", "ms": 900})
    assert (status, answer["kind"]) == (410, "gone") and "made again" in answer["error"]

    assert app.post("vote", {"ticket": pairs[1]["ticket"], "choice": "left", "ms": 900})[0] == 200
    app.studio.delete_scene(scene, ANN)
    status, answer = app.post("vote", {"ticket": pairs[2]["ticket"], "choice": "left", "ms": 900})
    assert (status, answer["kind"]) == (410, "gone") and "deleted" in answer["error"]
    assert app.post("next", {"scene": "one"})[1]["kind"] == "gone"
    assert app.post("undo", {"scene": "one"})[1]["kind"] == "gone"
    assert len(app.stored()) == 1


def test_a_vote_needs_consent_to_this_version_and_waits_for_it(app: App) -> None:
    (pair,) = app.next(BOB)["pairs"]
    vote = {"ticket": pair["ticket"], "choice": "left", "ms": 900}
    status, answer = app.post("vote", vote, BOB)
    assert (status, answer["kind"]) == (403, "consent") and app.stored() == []
    status, answer = app.post("agree", {"version": "2001", "licence": people.LICENCE}, BOB)
    assert status == 422 and "read it again" in answer["error"]
    app.agree(BOB)
    assert app.post("vote", vote, BOB)[0] == 200


def test_a_pseudonym_is_kept_as_text_and_withdrawing_deletes_everything(app: App) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    app.agree(name=hostile)
    (pair,) = app.next()["pairs"]
    said = {"tags": ["blur"], "marks": marks(RENDER_SIZE)}
    app.post("vote", {"ticket": pair["ticket"], "choice": "left", "ms": 900, "left": said, "comment": "secret"})
    me = app.post("me", {})[1]["me"]
    assert (me["name"], me["votes"], me["agreed"]) == (hostile, 1, True)
    assert app.post("agree", {**AGREED, "name": "x" * 41})[0] == 422
    status, gone = app.post("withdraw", {})
    assert status == 200 and (gone["votes"], gone["marks"]) == (1, 1)
    assert gone["me"]["agreed"] is False and gone["me"]["name"] == "" and app.stored() == []
    with sqlite3.connect(app.folder / "ratings.sqlite") as raw:
        assert "secret" not in "\n".join(raw.iterdump())


def test_nobody_votes_with_somebody_elses_ticket_or_forges_one(app: App) -> None:
    app.agree(BOB)
    (pair,) = app.next()["pairs"]
    status, answer = app.post("vote", {"ticket": pair["ticket"], "choice": "left", "ms": 900}, BOB)
    assert status == 422 and "logged in or out" in answer["error"]
    known = unseal(pair["ticket"], app.studio.secret)
    forged = seal(Ticket(**{**vars(known), "rater": app.rater(BOB)}), "another secret")
    assert app.post("vote", {"ticket": forged, "choice": "left", "ms": 900}, BOB)[0] == 422
    with pytest.raises(RatingError):
        unseal(pair["ticket"][:-1], app.studio.secret)
    assert app.client.post("/rate/vote", json={}).status_code == 422, "a page of another site can send no X-Visitor"


def test_strangers_do_not_rate_each_others_scenes(tmp_path: Path) -> None:
    app = App(tmp_path, public=True)
    scene = make_scene(app.studio.scenes_root, "one")
    scene.update_info(owner=owner_key(ANN))
    assert len(app.next()["pairs"]) == 1
    assert app.post("next", {"scene": "one"}, BOB)[1]["kind"] == "gone"
    assert app.next(BOB, everywhere=True)["pairs"] == []


def test_a_locked_database_is_told_as_passing_and_the_vote_goes_through_later(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair,) = app.next()["pairs"]
    vote = {"ticket": pair["ticket"], "choice": "left", "ms": 900}
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    app.studio.store.engine.dispose()  # new connections wait only so long
    with sqlite3.connect(app.folder / "ratings.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        status, answer = app.post("vote", vote)
        assert (status, answer["kind"]) == (503, "again") and "kept and sent again" in answer["error"]
        other.rollback()
    assert app.post("vote", vote)[0] == 200 and len(app.stored()) == 1


def test_a_full_disk_is_told_as_passing_and_nothing_is_lost(app: App) -> None:
    pairs = app.next(want=3)["pairs"]
    # Characters of three bytes, so that each vote needs a page of the database's file.
    votes = [{"ticket": pair["ticket"], "choice": "left", "ms": 900, "comment": "€" * 1000} for pair in pairs]
    engine = app.studio.store.engine

    def full(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite says then what it says when the disk is full

    def free(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1000000")

    event.listen(engine, "checkout", full)
    statuses = [app.post("vote", vote)[0] for vote in votes]
    event.remove(engine, "checkout", full)
    event.listen(engine, "checkout", free)
    assert statuses[-1] == 503 and len(app.stored()) == statuses.count(200)
    for vote in votes:
        assert app.post("vote", vote)[0] == 200
    assert len(app.studio.store.ratings(include_superseded=True, purposes=(RATE, GOLD, REPEAT))) == 3


def test_a_vote_after_its_lease_ran_out_is_stored_and_says_so(app: App) -> None:
    app.ratings.sampler = Sampler(app.studio.store, app.studio.scenes_root, lease_s=0.0, make_gold=False)
    (pair,) = app.next()["pairs"]
    assert app.post("vote", {"ticket": pair["ticket"], "choice": "tie", "ms": 9})[0] == 200
    (late,) = app.stored()
    assert late.late and late.rating.choice == "tie"


def test_postgresql_goes_away_and_comes_back_and_each_vote_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.need()
    monkeypatch.setattr(store_module, "_RETRIED_S", 0.5)
    server = postgresql.PostgresqlServer()
    try:
        server.create()
        server.start()
        app = App(tmp_path, url=server.url())
        make_scene(app.studio.scenes_root, "one")
        app.agree()
        pairs = app.next(want=2)["pairs"]
        votes = [{"ticket": pair["ticket"], "choice": "left", "ms": 900} for pair in pairs]
        assert app.post("vote", votes[0])[0] == 200
        server.kill()
        for action, body in (("vote", votes[1]), ("next", {"scene": "one"}), ("undo", {"scene": "one"}), ("me", {})):
            status, answer = app.post(action, body)
            assert (status, answer["kind"]) == (503, "again"), action
        server.start()
        for vote in votes:
            assert app.post("vote", vote)[0] == 200
        assert len(app.stored()) == 2 and len(app.next(want=1)["pairs"]) == 1
    finally:
        server.stop()


def test_where_strangers_come_in_nobody_votes_faster_than_they_can_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "VOTES_AT_ONCE", 2)
    monkeypatch.setattr(routes, "RATERS_AT_ONCE", 1)
    app = App(tmp_path, public=True)
    make_scene(app.studio.scenes_root, "one")
    app.agree()
    app.agree(name="a new name is no new rater")
    assert app.post("agree", AGREED, BOB)[0] == 429
    pairs = app.next(want=3)["pairs"]
    answers = [app.post("vote", {"ticket": pair["ticket"], "choice": "tie", "ms": 9}) for pair in pairs]
    assert [status for status, _ in answers] == [200, 200, 429] and answers[2][1]["kind"] == "fast"
    assert "sent by itself" in answers[2][1]["error"] and len(app.stored()) == 2


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


def test_a_bucket_fills_again_with_time_and_each_rater_has_their_own() -> None:
    now = [100.0]
    buckets = Buckets(2, 0.5, clock=lambda: now[0])
    assert [buckets.take("ann") for _ in range(3)] == [True, True, False] and buckets.take("bob")
    now[0] += 2
    assert [buckets.take("ann") for _ in range(2)] == [True, False]
    now[0] += 1e6
    assert [buckets.take("ann") for _ in range(3)] == [True, True, False]


def test_a_body_that_is_no_json_or_too_long_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"{", b"[1]", b"\xff"):
        answer = app.client.post("/rate/vote", content=content, headers={"X-Visitor": ANN})
        assert answer.status_code == 422
    monkeypatch.setattr(routes, "_MAX_BODY_BYTES", 100)
    answer = app.client.post("/rate/vote", content=b"x" * 101, headers={"X-Visitor": ANN})
    assert answer.status_code == 422 and "Clear some of the marks" in answer.json()["error"]
    status, answer = app.post("next", {"scene": "one", "held": 3, "want": "all"})
    assert status == 200 and len(answer["pairs"]) == 1


def test_a_login_with_hugging_face_is_the_same_rater_in_every_browser(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked:
        """A request whose session is what Gradio's login leaves."""

        def __init__(self, visitor: str, session: dict[str, Any]):
            self.headers, self.session, self.scope = {"x-visitor": visitor}, session, {"session": session}

    info = {"expires_at": 4e9, "userinfo": {"sub": "64ab", "preferred_username": "ann"}}
    at_home = people.who_asks(Asked(ANN, {"oauth_info": info}))  # type: ignore[arg-type]
    assert at_home.rater(app.studio) == app.rater(ANN), "no login outside of a Space"
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "id")
    one, two = (people.who_asks(Asked(visitor, {"oauth_info": info})) for visitor in (ANN, BOB))  # type: ignore[arg-type]
    assert one.rater(app.studio) == two.rater(app.studio) != app.rater(ANN) and "64ab" not in one.rater(app.studio)
    assert people.described(app.studio.store, app.studio, one)["login"] == {"user": "ann", "url": "logout"}
    over = people.who_asks(Asked(ANN, {"oauth_info": {**info, "expires_at": 1}}))  # type: ignore[arg-type]
    assert over.rater(app.studio) == app.rater(ANN)
    assert people.described(app.studio.store, app.studio, over)["login"]["url"] == "login/huggingface"


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
