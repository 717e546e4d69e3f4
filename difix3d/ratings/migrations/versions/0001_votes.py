"""Version 1: raters, pictures, candidates, pairs and the log of votes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schema_version",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "raters",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("key", sa.String(200), nullable=False, unique=True),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "images",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("scene_id", sa.String(200), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("size", sa.Integer),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_images_scene_id", "images", ["scene_id"])
    op.create_table(
        "candidates",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("image_sha256", sa.String(64), sa.ForeignKey("images.sha256"), nullable=False),
        sa.Column("scene_id", sa.String(200), nullable=False),
        sa.Column("trajectory", sa.String(200), nullable=False),
        sa.Column("frame_index", sa.Integer, nullable=False),
        sa.Column("fixer", sa.String(200), nullable=False),
        sa.Column("image_path", sa.Text, nullable=False),
        sa.Column("reference_names", sa.JSON, nullable=False),
        sa.Column("timestep", sa.Integer),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("scene_id", sa.String(200), nullable=False),
        sa.Column("candidate_a", sa.String(64), sa.ForeignKey("candidates.id"), nullable=False),
        sa.Column("candidate_b", sa.String(64), sa.ForeignKey("candidates.id"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_items_scene_id", "items", ["scene_id"])
    op.create_table(
        "ratings",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("token", sa.String(100), nullable=False, unique=True),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("item_id", sa.String(64), sa.ForeignKey("items.id"), nullable=False),
        sa.Column("rater_number", sa.Integer, sa.ForeignKey("raters.number"), nullable=False),
        sa.Column("choice", sa.String(10)),
        sa.Column("left_is", sa.String(1)),
        sa.Column("seconds", sa.Float),
        sa.Column("reference", sa.Text),
        sa.Column("shown_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("supersedes", sa.String(36), sa.ForeignKey("ratings.id"), unique=True),
        sa.Column("ui_version", sa.String(50), nullable=False),
        sa.CheckConstraint(
            "(action = 'vote' AND choice IN ('a', 'b', 'tie', 'both_bad', 'skip') AND left_is IN ('a', 'b')"
            " AND seconds >= 0) OR (action = 'retract' AND choice IS NULL AND supersedes IS NOT NULL)",
            name="rating_is_a_vote_or_a_retraction",
        ),
    )
    op.create_index("ratings_of_item", "ratings", ["item_id"])
    op.create_index("ratings_of_rater", "ratings", ["rater_number", "number"])
