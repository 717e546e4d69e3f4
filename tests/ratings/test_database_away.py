"""A database that goes away, or that is locked, or whose disk is full: a vote is tried again, kept once, or refused in
words that say so; never lost in silence."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import postgresql_server as postgresql
import pytest
from rating_votes import vote
from sqlalchemy import event

from difix3d.errors import RatingError
from difix3d.ratings import store as store_module
from difix3d.ratings.store import RatingStore


@pytest.fixture
def server():
    """A server of its own, to be killed."""
    postgresql.need()
    made = postgresql.PostgresqlServer()
    try:
        made.create()
        made.start()
        yield made
    finally:
        made.stop()


def test_a_vote_outlives_a_postgresql_that_is_started_again(server) -> None:
    with RatingStore(server.url()) as store:
        store.add(vote(index=0), "before")
        server.kill()
        threading.Timer(1.5, server.start).start()
        started = time.monotonic()
        store.add(vote(index=1), "while it was away")
        assert time.monotonic() - started > 1.0
        store.add(vote(index=2), "after")
        assert len(store.ratings()) == 3


def test_a_vote_that_cannot_be_saved_says_so_and_can_be_sent_again(server, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_RETRIED_S", 1.0)
    with RatingStore(server.url()) as store:
        server.kill()
        with pytest.raises(RatingError, match=r"could not be saved: .* Try again"):
            store.add(vote(), "the token")
        server.start()
        first = store.add(vote(), "the token")
        assert store.add(vote(), "the token") == first and len(store.ratings()) == 1


def test_votes_of_many_while_postgresql_is_killed_again_and_again(server) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()
    with RatingStore(server.url()) as store:

        def rate(rater: str) -> None:
            index = 0
            while not stop.is_set():
                acknowledged.append(store.add(vote("a", rater, index), f"{rater}-{index}"))
                index += 1

        threads = [threading.Thread(target=rate, args=(f"rater {number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.7)
            server.kill()
            time.sleep(0.3)
            server.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        stored = [entry.id for entry in store.ratings()]
        assert len(stored) == len(set(stored)) and set(stored) == set(acknowledged) and len(acknowledged) > 30


def test_a_locked_sqlite_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with RatingStore(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1.0, lambda: other.execute("COMMIT")).start()
        store.add(vote(), "one")
        assert len(store.ratings()) == 1


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}") as store:
        store.add(vote(index=0), "fits")
        with store.engine.connect() as connection:  # SQLite's own limit, which it reports as a full disk
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

        def limit(connection, record, proxy) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        event.listen(store.engine, "checkout", limit)
        with pytest.raises(RatingError, match=r"could not be saved: database or disk is full\. Try again"):
            for index in range(1, 500):
                store.add(vote(index=index), f"t{index}")
        saved = len(store.ratings())
        event.remove(store.engine, "checkout", limit)
        with store.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        store.add(vote(index=saved), f"t{saved}")
        assert len(store.ratings()) == saved + 1
