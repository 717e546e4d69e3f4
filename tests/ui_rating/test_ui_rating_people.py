"""Who rates: consent, pseudonyms, tickets, strangers, logins, and how fast."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rated_scene import RENDER_SIZE, make_scene
from rating_app import AGREED, ANN, BOB, App, marks

from difix3d.errors import RatingError
from difix3d.ui.rating import people, routes
from difix3d.ui.rating.limits import Buckets
from difix3d.ui.rating.ticket import Ticket, seal, unseal
from difix3d.ui.studio import owner_key


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


def test_who_withdraws_and_comes_back_votes_on_what_they_are_shown_then_and_not_on_what_they_were(app: App) -> None:
    before, _ = app.next(want=2)["pairs"]
    app.post("withdraw", {})
    app.agree()
    status, answer = app.post("vote", {"ticket": before["ticket"], "choice": "left", "ms": 900})
    assert status == 422 and "when you withdraw" in answer["error"] and app.stored() == []
    for pair in app.next(want=2)["pairs"]:
        assert app.post("vote", {"ticket": pair["ticket"], "choice": "left", "ms": 900})[0] == 200
    assert len(app.stored()) == 2


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
    invented = seal(Ticket(**{**vars(known), "token": "never given out"}), app.studio.secret)
    status, answer = app.post("vote", {"ticket": invented, "choice": "left", "ms": 900})
    assert status == 422 and "not counted" in answer["error"] and app.stored() == [], "whoever has the secret"
    assert app.client.post("/rate/vote", json={}).status_code == 422, "a page of another site can send no X-Visitor"


def test_strangers_do_not_rate_each_others_scenes(tmp_path: Path) -> None:
    app = App(tmp_path, public=True)
    scene = make_scene(app.studio.scenes_root, "one")
    scene.update_info(owner=owner_key(ANN))
    app.agree(ANN)
    app.agree(BOB)
    assert len(app.next()["pairs"]) == 1
    assert app.post("next", {"scene": "one"}, BOB)[1]["kind"] == "gone"
    assert app.next(BOB, everywhere=True)["pairs"] == []


def test_where_strangers_come_in_pairs_are_given_to_those_who_agreed_and_nothing_is_written_of_others(
    tmp_path: Path,
) -> None:
    app = App(tmp_path, public=True)
    make_scene(app.studio.scenes_root, "one")
    for number in range(3):
        status, answer = app.post("next", {"scene": "one"}, f"a-visitor-made-up-{number}")
        assert (status, answer["kind"]) == (403, "consent") and "agree first" in answer["error"]
    with sqlite3.connect(app.folder / "ratings.sqlite") as raw:
        for table in ("raters", "assignments"):
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    app.agree()
    assert len(app.next()["pairs"]) == 1


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


def test_a_bucket_fills_again_with_time_and_each_rater_has_their_own() -> None:
    now = [100.0]
    buckets = Buckets(2, 0.5, clock=lambda: now[0])
    assert [buckets.take("ann") for _ in range(3)] == [True, True, False] and buckets.take("bob")
    now[0] += 2
    assert [buckets.take("ann") for _ in range(2)] == [True, False]
    now[0] += 1e6
    assert [buckets.take("ann") for _ in range(3)] == [True, True, False]


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
    # Their access to the Hub ends; who they are does not, or what they have seen would be another person's to vote on.
    later = people.who_asks(Asked(ANN, {"oauth_info": {**info, "expires_at": 1}}))  # type: ignore[arg-type]
    assert later.rater(app.studio) == one.rater(app.studio)
    out = people.who_asks(Asked(ANN, {}))  # type: ignore[arg-type]
    assert out.rater(app.studio) == app.rater(ANN)
    assert people.described(app.studio.store, app.studio, out)["login"]["url"] == "login/huggingface"
