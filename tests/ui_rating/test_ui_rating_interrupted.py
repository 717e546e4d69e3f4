"""Votes on what is gone, late, or while the database is away: counted once, or refused in words."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import postgresql_server as postgresql
import pytest
from rated_scene import RENDER_SIZE, make_scene, picture
from rating_app import ANN, App
from sqlalchemy import event

from difix3d.formats.image import write_rgb
from difix3d.ratings import database
from difix3d.ratings import store as store_module
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.sampler import Sampler
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ui.rating.ticket import unseal


def test_a_vote_on_a_pair_of_before_a_restart_is_stored(app: App, tmp_path: Path) -> None:
    (pair,) = app.next()["pairs"]
    again = App(tmp_path)
    status, answer = again.post("vote", {"ticket": pair["ticket"], "choice": "both_bad", "ms": 500})
    assert status == 200, answer
    assert [each.rating.choice for each in app.stored()] == ["both_bad"]


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
