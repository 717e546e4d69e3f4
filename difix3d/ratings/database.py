"""Open a rating database: a file of SQLite, or any SQLAlchemy URL."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from difix3d.errors import MissingBackendError, RatingError
from difix3d.ratings.migrations import upgrade
from difix3d.ratings.schema import SCHEMA_VERSION, SchemaRow

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another one: thousands of times what writing a vote takes."""
_CONNECT_TIMEOUT_S = 5
_MIGRATION_LOCK = 0x44694669  # any number that nothing else locks


def default_url() -> str:
    """$DIFIX3D_RATINGS_DB, or ratings.sqlite in the current folder."""
    return os.environ.get("DIFIX3D_RATINGS_DB") or "sqlite:///ratings.sqlite"


def open_engine(url: str) -> Engine:
    """An engine whose tables exist and have our version; those of an older one are brought up to it.

    RatingError for a URL or a file that cannot be used, and for tables of a newer version; MissingBackendError
    where the URL's driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise RatingError(
            f"{url!r} is no database URL: expected one such as sqlite:///ratings.sqlite or postgresql://host/name"
        ) from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        if parsed.database in (None, "", ":memory:"):
            raise RatingError("Ratings need a file, so that they are not lost: sqlite:///ratings.sqlite")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    name = parsed.render_as_string(hide_password=True)
    try:
        engine = _sqlite_engine(parsed) if is_sqlite else _server_engine(parsed)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingBackendError(
            f"{name}: no driver for {parsed.drivername} is installed ({error}). For PostgreSQL: "
            "pip install -e '.[postgresql]'"
        ) from error
    try:
        _bring_up_to_date(engine, name)
    except DBAPIError as error:
        engine.dispose()
        raise RatingError(f"{name} cannot be used for ratings: {error.orig}") from error
    except RatingError:
        engine.dispose()
        raise
    return engine


def _sqlite_engine(url: URL, foreign_keys: bool = True) -> Engine:
    engine = create_engine(url, poolclass=None if foreign_keys else NullPool)
    event.listen(engine, "connect", _set_up_sqlite if foreign_keys else _set_up_sqlite_for_tables)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _server_engine(url: URL) -> Engine:
    """Asks before each use whether the connection still stands: a server that was restarted is not noticed."""
    arguments = {"connect_timeout": _CONNECT_TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
    return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=arguments)


def writing(engine: Engine, lasting: bool = True) -> Engine:
    """`engine`, whose transactions take the write lock at their start: one that reads and then writes never finds
    that another writer came between (SQLite would refuse it, however long it waits).

    lasting: what is committed outlives a power cut. Without, it outlives the process, and the power cut too once a
    lasting transaction followed; it does not wait for the disk, which is most of what a commit takes.
    """
    return engine.execution_options(writes=True, lasting=lasting)


def _set_up_sqlite(connection: Any, record: Any) -> None:
    _set_up_sqlite_for_tables(connection, record)
    connection.execute("PRAGMA foreign_keys = ON")


def _set_up_sqlite_for_tables(connection: Any, _: Any) -> None:
    # sqlite3 must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA secure_delete = ON")  # what a rater withdraws is overwritten, too
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("writes"):
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get('lasting', True) else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def _bring_up_to_date(engine: Engine, name: str) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            version = _version(engine)
            if version > SCHEMA_VERSION:
                raise RatingError(
                    f"{name} was written by a newer version: its tables are version {version}, this program knows "
                    f"{SCHEMA_VERSION}. Update it (git pull, then pip install -e .), or name another database with "
                    "--ratings-db."
                )
            if version < SCHEMA_VERSION:
                _migrate(engine)
                if version:
                    log.info("%s: tables of version %d are of version %d now", name, version, SCHEMA_VERSION)
            return
        except OperationalError as error:
            # Turning a new file to WAL does not wait for another process that does the same.
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _version(engine: Engine) -> int:
    """Of the tables; 0 where there are none."""
    with engine.begin() as connection:
        if not inspect(connection).has_table(SchemaRow.__tablename__):
            return 0
        return connection.scalar(select(func.max(SchemaRow.version))) or 0


def _migrate(engine: Engine) -> None:
    is_sqlite = engine.dialect.name == "sqlite"
    migrating = _sqlite_engine(engine.url, foreign_keys=False) if is_sqlite else engine
    with writing(migrating).begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two programs that start at once take turns; the second one finds nothing left to do.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        upgrade(connection)
        if is_sqlite and (wrong := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise RatingError(f"The tables could not be brought up to date: {len(wrong)} rows point at nothing.")
