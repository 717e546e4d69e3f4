"""Tables of an older version are brought up to ours with every vote in them, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from rating_votes import vote
from sqlalchemy import Connection, NullPool, create_engine, inspect, text

from difix3d.ratings.campaigns import entered
from difix3d.ratings.database import open_engine, writing
from difix3d.ratings.identity import candidate_key, item_key
from difix3d.ratings.migrations import upgrade
from difix3d.ratings.schema import SCHEMA_VERSION, Base, new_id
from difix3d.ratings.store import RatingStore

WHEN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def make_version_1(connection: Connection) -> dict[int, tuple]:
    """As the program before migrations left it: three votes of two people, one changed, one undone; no alembic_version.
    Returns number -> (id, token, action, choice, left_is, seconds, supersedes)."""
    upgrade(connection, "0001")
    connection.execute(text("DROP TABLE alembic_version"))
    connection.execute(text("INSERT INTO schema_version (version, created_at) VALUES (1, :at)"), {"at": WHEN})
    rating = vote()
    keys = [candidate_key(each) for each in (rating.candidate_a, rating.candidate_b)]
    for each, key in zip((rating.candidate_a, rating.candidate_b), keys):
        values = {"sha": each.sha256, "path": each.image_path, "at": WHEN, "key": key, "fixer": each.fixer}
        connection.execute(text("INSERT INTO images VALUES (:sha, 'court', 'render', :path, 123, :at)"), values)
        row = "(:key, :sha, 'court', 'orbit', 0, :fixer, :path, '[\"00001.jpg\"]', NULL, 0, '{}', :at)"
        connection.execute(text(f"INSERT INTO candidates VALUES {row}"), values)
    item = item_key(rating.candidate_a, rating.candidate_b)
    values = {"id": item, "a": keys[0], "b": keys[1], "at": WHEN}
    connection.execute(text("INSERT INTO items VALUES (:id, 'pair', 'court', :a, :b, :at)"), values)
    for rater in ("ann", "bob"):
        connection.execute(text("INSERT INTO raters (key, created_at) VALUES (:key, :at)"), {"key": rater, "at": WHEN})
    ids = [new_id() for _ in range(4)]
    rows: dict[int, tuple] = {
        1: (ids[0], "t1", "vote", "a", "b", 2.5, None),
        2: (ids[1], "t2", "vote", "tie", "a", 1.25, ids[0]),
        3: (ids[2], "t3", "vote", "both_bad", "a", 4.0, None),
        4: (ids[3], "t4", "retract", None, None, None, ids[2]),
    }
    for number, row in rows.items():
        rater = 2 if number > 2 else 1
        connection.execute(
            text(
                "INSERT INTO ratings (id, token, action, choice, left_is, seconds, supersedes, item_id, rater_number,"
                " created_at, shown_at, ui_version) VALUES (:id, :token, :action, :choice, :left, :seconds,"
                " :supersedes, :item, :rater, :at, :at, 'studio 0.1.0')"
            ),
            dict(zip(("id", "token", "action", "choice", "left", "seconds", "supersedes"), row))
            | {"item": item, "rater": rater, "at": WHEN},
        )
    return rows


@pytest.fixture
def version_1(url: str, tmp_path) -> dict[int, tuple]:
    (tmp_path / "new").mkdir(exist_ok=True)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        return make_version_1(connection)


def test_a_database_of_version_1_keeps_every_vote(url: str, version_1: dict[int, tuple]) -> None:
    with RatingStore(url) as store:
        with store.engine.connect() as connection:
            columns = "number, id, token, action, choice, left_is, seconds, supersedes"
            found = connection.execute(text(f"SELECT {columns} FROM ratings ORDER BY number")).all()
            assert {row[0]: tuple(row[1:]) for row in found} == version_1
            assert connection.scalar(text("SELECT max(version) FROM schema_version")) == SCHEMA_VERSION
        (standing,) = store.ratings()
        assert (standing.rating.choice, standing.rating.rater, standing.created_at) == ("tie", "ann", WHEN)
        assert (standing.purpose, standing.late, standing.rating.comment) == ("rate", False, "")
        assert standing.rating.candidate_a.references == ("00001.jpg",)
        first = store.ratings(include_superseded=True)[0]
        assert (first.superseded_by, first.superseded_as) == (version_1[2][0], "vote")
        assert store.counts()["ratings"] == 1 and store.person("bob").votes == 0

        # The log goes on where it was: numbers follow, a changed vote supersedes, a known token is known.
        assert store.add(vote("tie"), "t2") == version_1[2][0]
        store.add(vote("b"), "t5")
        assert store.last_number() == 5 and [each.rating.choice for each in store.ratings()] == ["b"]
    with RatingStore(url) as again:
        assert again.last_number() == 5


def test_questions_of_campaigns_keep_their_side(url: str, version_1: dict[int, tuple]) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        upgrade(connection, "0002")
        connection.execute(text("UPDATE items SET kind = 'campaign_b'"))
    with RatingStore(url) as store:
        assert list(entered(store).values()) == ["b"]
        with store.engine.connect() as connection:
            assert connection.scalars(text("SELECT DISTINCT kind FROM items")).all() == ["pair"]


def test_migrations_make_the_tables_that_the_classes_describe(url: str) -> None:
    engine = open_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert [change for change in compare_metadata(context, Base.metadata) if "alembic" not in str(change)] == []
        for table in Base.metadata.sorted_tables:
            wanted = {check.name for check in table.constraints if "check" in type(check).__name__.lower()}
            assert wanted == {check["name"] for check in inspect(connection).get_check_constraints(table.name)}
    engine.dispose()


def test_programs_that_start_at_once_bring_it_up_to_date_once(url: str, version_1: dict[int, tuple]) -> None:
    with ThreadPoolExecutor(6) as pool:
        for engine in pool.map(open_engine, [url] * 6):
            engine.dispose()
    with RatingStore(url) as store:
        assert store.last_number() == len(version_1)


def test_an_upgrade_that_fails_leaves_what_was_there(url: str, version_1: dict[int, tuple], monkeypatch) -> None:
    def fails(connection: Connection) -> None:
        upgrade(connection)
        raise OSError("the disk is full")

    monkeypatch.setattr("difix3d.ratings.database.upgrade", fails)
    with pytest.raises(OSError, match="disk is full"):
        open_engine(url)
    monkeypatch.undo()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT max(version) FROM schema_version")) == 1
        assert not inspect(connection).has_table("judgements")
        assert connection.scalar(text("SELECT count(*) FROM ratings")) == len(version_1)
    with RatingStore(url) as store:
        assert store.last_number() == len(version_1)


def test_numbers_are_not_given_again(url: str) -> None:
    with RatingStore(url) as store:
        store.add(vote(rater="ann"), "one")
        store.add(vote(rater="bob"), "two")
        store.withdraw("bob")
        store.add(vote(rater="cid"), "three")
        assert store.ratings()[-1].number == 3
        assert writing(store.engine) is not store.engine
