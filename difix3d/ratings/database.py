"""Open a rating database: a file of SQLite, or any SQLAlchemy URL."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from difix3d.errors import MissingBackendError, RatingError
from difix3d.ratings.schema import SCHEMA_VERSION, Base, SchemaRow

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another one: thousands of times what writing a vote takes."""


def default_url() -> str:
    """$DIFIX3D_RATINGS_DB, or ratings.sqlite in the current folder."""
    return os.environ.get("DIFIX3D_RATINGS_DB") or "sqlite:///ratings.sqlite"


def open_engine(url: str) -> Engine:
    """An engine whose tables exist and have our version.

    RatingError for a URL or a file that cannot be used, and for tables of a newer version; MissingBackendError
    where the URL's driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise RatingError(
            f"{url!r} is no database URL: expected one such as sqlite:///ratings.sqlite or postgresql://host/name"
        ) from error
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        if parsed.database in (None, "", ":memory:"):
            raise RatingError("Ratings need a file, so that they are not lost: sqlite:///ratings.sqlite")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    name = parsed.render_as_string(hide_password=True)
    try:
        engine = create_engine(parsed, pool_pre_ping=not is_sqlite)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingBackendError(
            f"{name}: no driver for {parsed.drivername} is installed ({error}). For PostgreSQL: pip install psycopg, "
            f"and a URL that starts with postgresql+psycopg://"
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        _make_tables(engine, name)
    except DBAPIError as error:
        engine.dispose()
        raise RatingError(f"{name} cannot be used for ratings: {error.orig}") from error
    except RatingError:
        engine.dispose()
        raise
    return engine


def writing(engine: Engine) -> Engine:
    """`engine`, whose transactions take the write lock at their start: one that reads and then writes never finds
    that another writer came between (SQLite would refuse it, however long it waits)."""
    return engine.execution_options(writes=True)


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # sqlite3 must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _make_tables(engine: Engine, name: str) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with writing(engine).begin() as connection:
                Base.metadata.create_all(connection)
                versions = connection.execute(select(SchemaRow.version)).scalars().all()
                if not versions:
                    connection.execute(insert(SchemaRow).values(version=SCHEMA_VERSION))
            break
        except OperationalError as error:
            # Turning a new file to WAL does not wait for another process that does the same.
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    if versions and max(versions) > SCHEMA_VERSION:
        raise RatingError(
            f"{name} was written by a newer version: its tables are version {max(versions)}, this program knows "
            f"{SCHEMA_VERSION}. Update it (pip install -U difix3d), or name another database with --ratings-db."
        )
