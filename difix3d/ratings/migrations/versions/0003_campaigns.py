"""Version 3: the questions of campaigns have rows of their own. In version 2 such a question's kind was changed."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("item_id", sa.String(64), sa.ForeignKey("items.id"), nullable=False),
        sa.Column("new_is", sa.String(1), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("new_is IN ('a', 'b')", name="campaign_is_of_a_or_b"),
    )
    op.create_index("ix_campaigns_item_id", "campaigns", ["item_id"])
    for side in "ab":
        op.execute(
            "INSERT INTO campaigns (item_id, new_is, created_at)"
            f" SELECT id, '{side}', created_at FROM items WHERE kind = 'campaign_{side}' ORDER BY created_at, id"
        )
    op.execute("UPDATE items SET kind = 'pair' WHERE kind IN ('campaign_a', 'campaign_b')")
    versions = sa.table("schema_version", sa.column("version", sa.Integer), sa.column("created_at", TIME))
    op.execute(versions.delete())
    op.execute(versions.insert().values(version=3, created_at=datetime.now(UTC)))
