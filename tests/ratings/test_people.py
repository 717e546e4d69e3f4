"""Consent is kept, a pseudonym can change, and who withdraws takes everything along."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from rating_votes import vote
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from test_judgements import ON_A, ON_B

from difix3d.errors import RatingError
from difix3d.ratings.people import Withdrawn
from difix3d.ratings.push.entries import id_of, last_given, newest_settled
from difix3d.ratings.schema import ConsentRow, JudgementRow, MarksRow, RaterRow, WithdrawalRow
from difix3d.ratings.store import RatingStore


def test_consent_is_kept_once_for_each_version(store: RatingStore) -> None:
    assert store.person("ann") is None
    for version in ("1", "1", "2"):
        store.consent("ann", version, "CC-BY-4.0")
    store.name_rater("ann", "  A\x00nn\n of  Green Gables ")
    person = store.person("ann")
    assert person is not None and [each.version for each in person.consents] == ["1", "2"]
    assert (person.pseudonym, person.votes, person.consents[0].licence) == ("Ann of Green Gables", 0, "CC-BY-4.0")
    with pytest.raises(RatingError, match="version of consent"):
        store.consent("ann", "", "CC0-1.0")


def test_who_withdraws_takes_everything_and_nothing_of_others(store: RatingStore) -> None:
    for rater in ("ann", "bob"):
        store.consent(rater, "1", "CC0-1.0")
        store.name_rater(rater, f"{rater} the rater")
        for index in range(3):
            store.add(replace(vote("a", rater, index), on_a=ON_A, on_b=ON_B, comment=f"by {rater}"), f"{rater}{index}")
        store.add(vote("tie", rater, 0), f"{rater} changed")
        store.undo(rater)
    only_hers = replace(ON_A, marks=ON_A.marks + b"a byte after the end of the picture")
    store.add(replace(vote("b", "ann", 5), on_b=only_hers), "marks of her own")
    numbers = {rater: store.person(rater).number for rater in ("ann", "bob")}
    before = [each for each in store.ratings(include_superseded=True) if each.rating.rater == "bob"]

    assert store.withdraw("ann") == Withdrawn(votes=5, marks=2)
    assert store.person("ann") is None and store.withdraw("ann") == Withdrawn(0, 0)
    assert store.ratings(include_superseded=True) == before
    with Session(store.engine) as session:
        assert session.scalars(select(MarksRow.sha256)).all() == [_sha256(ON_A.marks)]  # bob marked the same
        assert session.scalar(select(func.count()).select_from(JudgementRow)) == 2 * 3
        assert session.scalars(select(ConsentRow.rater_number)).all() == [numbers["bob"]]
        gone = session.get(RaterRow, numbers["ann"])
        assert gone is not None and gone.key.startswith("withdrawn-") and gone.pseudonym == ""
        assert session.scalars(select(WithdrawalRow.votes)).all() == [5]
        assert session.scalar(text("SELECT count(*) FROM ratings WHERE comment LIKE '%ann%'")) == 0
    store.add(vote(rater="ann"), "back again")  # a new person to us
    assert store.person("ann").number not in numbers.values()


def test_numbers_of_entries_that_were_withdrawn_are_known_to_have_been_given(store: RatingStore) -> None:
    assert last_given(store) == 0
    ids = [store.add(vote("a", rater, index), f"{rater}{index}") for rater in ("bob", "ann") for index in range(2)]
    assert last_given(store) == 4 and id_of(store, 4) == ids[3]
    store.withdraw("ann")
    assert last_given(store) == 4 and newest_settled(store) <= 2 and id_of(store, 4) is None


def test_withdrawn_words_are_not_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with RatingStore(f"sqlite:///{path}") as store:
        store.add(replace(vote(), comment="a-sentence-to-look-for"), "one")
        store.withdraw("ann")
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"a-sentence-to-look-for" not in path.read_bytes()


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
