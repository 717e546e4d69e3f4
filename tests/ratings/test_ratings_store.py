"""The log of ratings: nothing is lost, nothing counts twice, whoever writes and whatever is clicked."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rating_votes import candidate, fixer_vote, vote
from sqlalchemy import create_engine, event, func, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from difix3d.errors import MissingBackendError, RatingError
from difix3d.ratings.identity import candidate_key, canonical_pair, item_key
from difix3d.ratings.schema import CHOICES, SCHEMA_VERSION, RatingRow, new_id
from difix3d.ratings.store import RatingStore, default_url
from difix3d.types import Candidate, Rating


def test_a_vote_comes_back_as_it_was_given(store: RatingStore) -> None:
    given = vote("b", left_is="b", reference="00003.jpg")
    given = replace(given, candidate_b=replace(given.candidate_b, timestep=199, seed=7, extra={"revision": "abc"}))
    token = new_id()
    identity = store.add(given, token, ui_version="0.1.0")
    (found,) = store.ratings()
    a, _ = canonical_pair(given.candidate_a, given.candidate_b)
    if a is given.candidate_a:
        assert found.rating == given
    assert (found.id, found.ui_version, found.superseded_by) == (identity, "0.1.0", "")
    assert (found.created_at - found.shown_at).total_seconds() == pytest.approx(2.5)
    assert found.created_at.tzinfo is not None


def test_order_of_candidates_does_not_change_what_a_vote_says(store: RatingStore) -> None:
    given = vote("a", left_is="b")
    turned = replace(given, candidate_a=given.candidate_b, candidate_b=given.candidate_a, choice="b", left_is="a")
    store.add(given, "one")
    store.add(replace(turned, rater="bob"), "two")
    first, second = store.ratings()
    assert first.item_id == second.item_id == item_key(given.candidate_b, given.candidate_a)
    assert replace(second.rating, rater="ann") == first.rating


def test_a_double_click_is_one_vote(store: RatingStore) -> None:
    token = new_id()
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: store.add(vote(), token), range(24)))
    assert len(ids) == 1 and store.counts()["ratings"] == 1 and store.last_number() == 1
    with pytest.raises(RatingError, match="another vote"):
        store.add(vote(index=1), token)


def test_a_second_vote_on_a_pair_supersedes_the_first(store: RatingStore) -> None:
    first = store.add(vote("a"), "t1")
    second = store.add(vote("tie"), "t2")
    store.add(vote("b", rater="bob"), "t3")
    assert [entry.rating.choice for entry in store.ratings()] == ["tie", "b"]
    old = store.ratings(include_superseded=True)[0]
    assert (old.id, old.superseded_by, old.superseded_as) == (first, second, "vote")
    assert store.counts()["superseded"] == 1


def test_undo_goes_back_one_vote_at_a_time_and_only_through_ones_own(store: RatingStore) -> None:
    for index in range(3):
        store.add(vote("a", index=index), f"ann{index}")
    store.add(vote("b", rater="bob"), "bob")
    for index in (2, 1):
        undone = store.undo("ann")
        assert undone is not None and undone.candidate_a.frame_index == index
    store.add(vote("tie", index=2), "again")
    assert store.undo("ann") == vote("tie", index=2)
    assert store.undo("ann") == vote("a", index=0)
    assert store.undo("ann") is None and store.undo("nobody") is None
    assert [entry.rating.rater for entry in store.ratings()] == ["bob"]
    assert store.last_number() == 4 + 2 + 1 + 2  # nothing was deleted


def test_undo_of_one_scene_and_a_double_click_on_undo(store: RatingStore) -> None:
    store.add(vote(index=0), "t0")
    elsewhere = replace(
        vote(), candidate_a=candidate(scene_id="park"), candidate_b=candidate("reproject", scene_id="park")
    )
    store.add(elsewhere, "t1")
    undone = store.undo("ann", scene_id="court", token="u")
    assert undone == vote(index=0) and store.undo("ann", scene_id="court", token="u") == undone
    assert [entry.rating.candidate_a.scene_id for entry in store.ratings()] == ["park"]
    assert store.ratings("court") == [] and len(store.ratings("court", include_superseded=True)) == 1


def test_rows_cannot_be_superseded_twice_and_point_at_nothing(store: RatingStore) -> None:
    first = store.add(vote(), "t1")
    store.undo("ann")
    row = {"action": "retract", "item_id": store.ratings(include_superseded=True)[0].item_id, "rater_number": 1}
    for wrong in ({"supersedes": first}, {"supersedes": "no such id"}, {"item_id": "none", "supersedes": first}):
        with pytest.raises(IntegrityError), Session(store.engine) as session, session.begin():
            session.add(RatingRow(token=new_id(), **{**row, **wrong}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"choice": "left"}, "choice: expected one of a, b, tie"),
        ({"left_is": "x"}, "left_is: expected a or b"),
        ({"seconds": -1.0}, "seconds: expected"),
        ({"seconds": float("nan")}, "seconds: expected"),
        ({"rater": ""}, "rater: expected"),
        ({"candidate_a": candidate(index=5)}, "of two frames"),
        ({"candidate_a": candidate(), "candidate_b": candidate()}, "one and the same"),
    ],
)
def test_votes_that_make_no_sense_are_refused_in_words(store: RatingStore, changes: dict, words: str) -> None:
    with pytest.raises(RatingError, match=words):
        store.add(replace(vote(), **changes), new_id())
    assert store.counts()["ratings"] == 0


_ACTIONS = st.lists(
    st.tuples(st.sampled_from(("vote", "undo")), st.sampled_from("xyz"), st.integers(0, 3), st.sampled_from(CHOICES)),
    max_size=30,
)


@given(_ACTIONS)
@settings(max_examples=25, deadline=None)
def test_counts_are_those_of_the_raw_log(tmp_path_factory, actions) -> None:
    """Against the plainest model: per rater a stack of votes, of which a new one on the same pair drops the old."""
    stacks: dict[str, list[tuple[int, str]]] = {}
    sides = random.Random(0)
    with RatingStore(f"sqlite:///{tmp_path_factory.mktemp('log') / 'r.sqlite'}") as store:
        for action, rater, index, choice in actions:
            stack = stacks.setdefault(rater, [])
            if action == "undo":
                undone = store.undo(rater)
                assert (undone is None) == (not stack)
                if undone is not None:
                    assert (undone.candidate_a.frame_index, undone.choice) == stack.pop()
            else:
                store.add(vote(choice, rater, index, left_is=sides.choice("ab")), new_id())
                stack[:] = [entry for entry in stack if entry[0] != index] + [(index, choice)]
        expected = [(rater, index, choice) for rater, stack in stacks.items() for index, choice in stack]
        counting = store.ratings()
        found = [(e.rating.rater, e.rating.candidate_a.frame_index, e.rating.choice) for e in counting]
        assert sorted(found) == sorted(expected)

        counts = store.counts()
        choices = [choice for _, _, choice in expected]
        assert counts["ratings"] == len(expected) and counts["raters"] == len({rater for rater, _, _ in expected})
        assert counts["choices"] == {
            "decided": choices.count("a") + choices.count("b"),
            **{choice: choices.count(choice) for choice in ("tie", "both_bad", "skip")},
        }
        assert counts["ratings"] + counts["superseded"] == len(store.ratings(include_superseded=True))
        left = sum(e.rating.choice == e.rating.left_is for e in counting)
        assert counts["side_bias"]["left"] == left
        rates = store.win_rates()
        for fixer in ("render", "reproject"):
            wins = sum(
                (e.rating.candidate_a if e.rating.choice == "a" else e.rating.candidate_b).fixer == fixer
                for e in counting
                if e.rating.choice in "ab"
            )
            assert rates.get(fixer, {"wins": 0})["wins"] == wins


def test_win_rates_and_side_bias(store: RatingStore) -> None:
    for index in range(6):
        store.add(replace(fixer_vote("reproject", index=index), left_is="a"), f"w{index}")
    store.add(fixer_vote("render", index=6), "l")
    store.add(vote("tie", index=7), "t")
    store.add(vote("both_bad", index=8), "bb")
    store.add(vote("skip", index=9), "s")
    other_reference = Candidate("court", "orbit", 20, "reproject", "x.png", "1" * 64, references=("00009.jpg",))
    store.add(Rating(other_reference, replace(other_reference, sha256="2" * 64), "a", "a", "ann", 1.0), "same fixer")
    rates = store.win_rates()
    assert {name: rates["reproject"][name] for name in ("wins", "losses", "ties", "both_bad", "win_rate")} == {
        "wins": 6, "losses": 1, "ties": 1, "both_bad": 1, "win_rate": 0.8125,
    }  # fmt: skip
    low, high = rates["reproject"]["interval"]
    assert low < 0.8125 < high and rates["render"]["win_rate"] == pytest.approx(1 - 0.8125)
    assert rates["reproject"]["against"]["render"]["wins"] == 6
    assert store.counts()["side_bias"]["left"] + store.counts()["side_bias"]["right"] == 8


_WRITER = """
import sys
from rating_votes import vote
from difix3d.ratings.store import RatingStore
url, rater = sys.argv[1:]
with RatingStore(url) as store:
    for index in range(40):
        store.add(vote("a" if index % 2 else "tie", rater, index % 20), f"{rater}-{index}")
        if index % 10 == 9:
            store.undo(rater)
        store.add(vote("b", "shared", index), f"shared-{index}")
"""


def test_two_processes_and_many_threads_lose_nothing(url: str) -> None:
    """Both start on a database without tables, and both send the same 40 tokens of one rater."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, url, rater], env=environment) for rater in ("one", "two")
    ]
    with RatingStore(url) as store, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: store.add(vote("a", f"thread{index % 4}", index), f"thread-{index}"), range(60)))
        assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
        by_rater: dict[str, int] = {}
        for entry in store.stream():
            by_rater[entry.rating.rater] = by_rater.get(entry.rating.rater, 0) + 1
        assert by_rater == {"one": 18, "two": 18, "shared": 40, **{f"thread{i}": 15 for i in range(4)}}
        assert len(store.ratings(include_superseded=True)) == 40 + 40 + 40 + 60
        with Session(store.engine) as session:
            if url.startswith("sqlite"):
                assert session.scalar(text("PRAGMA journal_mode")) == "wal"
                assert session.scalar(text("PRAGMA foreign_keys")) == 1
                assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert session.scalar(select(func.count()).select_from(RatingRow)) == 180 + 8  # of them 8 retractions


def test_the_same_pictures_are_written_in_the_same_order_by_everybody(store: RatingStore) -> None:
    """Whoever writes a picture makes others wait who write it too: in another order each would wait for the other."""

    def shows_first(rating: Rating) -> str:
        return rating.candidate_a.sha256

    def of_frame(index: int) -> Rating:
        one, other = (
            candidate(fixer, index, sha256=sha) for fixer, sha in (("render", "1" * 64), ("reproject", "2" * 64))
        )
        return replace(
            vote(rater=f"rater {index}"), **dict(zip(("candidate_a", "candidate_b"), canonical_pair(one, other)))
        )

    frames = [of_frame(index) for index in range(20)]
    rows = [next(each for each in frames if shows_first(each) == sha) for sha in ("1" * 64, "2" * 64)]
    met, refused = threading.Barrier(2), []

    def after_a_picture(connection, cursor, statement, *_) -> None:
        if statement.startswith("INSERT INTO images"):
            with suppress(threading.BrokenBarrierError):  # the other one waits for our row, as it should
                met.wait(timeout=0.5)

    event.listen(store.engine, "after_cursor_execute", after_a_picture)
    event.listen(store.engine, "handle_error", lambda context: refused.append(str(context.original_exception)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rating: store.add(rating, new_id()), rows))
    assert refused == [] and len(store.ratings()) == 2


def test_reading_in_batches_sees_the_log_of_one_moment(store: RatingStore, monkeypatch) -> None:
    monkeypatch.setattr("difix3d.ratings.store.BATCH", 7)
    monkeypatch.setattr("difix3d.ratings.log.BATCH", 7)
    for index in range(20):
        store.add(vote(index=index), f"t{index}")
    last = store.last_number()
    reading = store.stream(up_to=last)
    seen = [next(reading)]
    store.undo("ann")
    store.add(vote("b", index=0), "later")
    seen += list(reading)
    assert [entry.number for entry in seen] == list(range(1, 21))
    assert len(store.ratings()) == 19


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.sqlite'}"
    RatingStore(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 99"))
    engine.dispose()
    with pytest.raises(RatingError, match=f"version 99, this program knows {SCHEMA_VERSION}"):
        RatingStore(url)


def test_what_is_no_database_is_told_in_words(tmp_path: Path) -> None:
    wrong = tmp_path / "notes.sqlite"
    wrong.write_bytes(b"These are notes, not a database. " * 100)
    for url, words in (
        (f"sqlite:///{wrong}", "cannot be used for ratings: file is not a database"),
        (f"sqlite:///{tmp_path}", "cannot be used for ratings: unable to open"),
        ("ratings.sqlite", "no database URL"),
        ("sqlite://", "need a file"),
    ):
        with pytest.raises(RatingError, match=words):
            RatingStore(url)
    with pytest.raises(MissingBackendError, match="secret") as missing:
        RatingStore("oracle://me:secret@host/db?x=secret")
    assert "me:secret" not in str(missing.value)


def test_default_url(monkeypatch) -> None:
    monkeypatch.delenv("DIFIX3D_RATINGS_DB", raising=False)
    assert default_url() == "sqlite:///ratings.sqlite"
    monkeypatch.setenv("DIFIX3D_RATINGS_DB", "postgresql+psycopg://host/ratings")
    assert default_url() == "postgresql+psycopg://host/ratings"


def test_tables_use_only_what_postgresql_knows_too() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    from difix3d.ratings.schema import Base

    for table in Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
    assert {"raters", "images", "candidates", "items", "ratings"} <= set(Base.metadata.tables)


def test_tables_are_named_as_the_schema_says(store: RatingStore) -> None:
    tables = set(inspect(store.engine).get_table_names())
    assert {"schema_version", "raters", "images", "candidates", "items", "ratings"} <= tables


def test_identity_depends_on_settings_and_pixels_alone() -> None:
    base = candidate("difix", timestep=199, seed=1, references=("a", "b"))
    assert candidate_key(base) == candidate_key(replace(base, image_path="elsewhere.png"))
    for change in (
        {"seed": 2},
        {"timestep": 100},
        {"references": ("b", "a")},
        {"sha256": "0" * 64},
        {"extra": {"x": 1}},
    ):
        assert candidate_key(base) != candidate_key(replace(base, **change))


def test_ids_sort_by_time_and_are_version_7() -> None:
    import uuid

    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(uuid.UUID(made).version == 7 and uuid.UUID(made).variant == uuid.RFC_4122 for made in ids)
    assert [made[:13] for made in ids] == sorted(made[:13] for made in ids)
