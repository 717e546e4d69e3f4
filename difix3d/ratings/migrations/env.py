"""Alembic runs this: migrations are run on the connection that `upgrade` was given, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
