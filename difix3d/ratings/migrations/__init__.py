"""The tables of ratings from one version to the next (Alembic). `upgrade` is all that others call.

Version N of the tables is revision "000N" here. `schema_version` holds N too: it is what a program of an older version
looks at, to say that it is too old.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

FOLDER = Path(__file__).resolve().parent


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to `revision`, making them where there are none, inside the connection's transaction.

    On SQLite the connection must not enforce foreign keys: tables are written anew.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    tables = set(inspect(connection).get_table_names())
    if "schema_version" in tables and "alembic_version" not in tables:
        # Version 1 was written before there were migrations.
        found = connection.execute(text("SELECT max(version) FROM schema_version")).scalar()
        if found is not None:
            command.stamp(config, f"{found:04d}")
    command.upgrade(config, revision)
