"""Version 4: votes are found by their assignment. Without, withdrawing looked through all of them for each."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("ratings_of_assignment", "ratings", ["assignment_id"])
    # When the tables were made stays: what is pushed tells databases apart by it.
    op.execute(sa.table("schema_version", sa.column("version", sa.Integer)).update().values(version=4))
