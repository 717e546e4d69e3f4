"""Fixtures: a rating store on SQLite, and on a PostgreSQL server that the test starts itself."""

from __future__ import annotations

from pathlib import Path

import postgresql_server as postgresql
import pytest

from difix3d.ratings.store import RatingStore

BOTH = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_server():
    postgresql.need()
    server = postgresql.PostgresqlServer()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database, on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'ratings.sqlite'}"
    return request.getfixturevalue("postgresql_server").url()


@pytest.fixture
def store(url: str):
    with RatingStore(url) as opened:
        yield opened
