"""Version 2: what a vote says of each picture, who was asked what and for which purpose, consent and withdrawal."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("raters", sa.Column("pseudonym", sa.String(80), nullable=False, server_default=""))
    op.add_column("items", sa.Column("expected", sa.String(10)))
    op.create_table(
        "consents",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rater_number", sa.Integer, sa.ForeignKey("raters.number"), nullable=False),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column("licence", sa.String(100), nullable=False),
        sa.Column("given_at", TIME, nullable=False),
    )
    op.create_index("ix_consents_rater_number", "consents", ["rater_number"])
    op.create_table(
        "withdrawals",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rater_number", sa.Integer, sa.ForeignKey("raters.number"), nullable=False),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("marks", sa.Integer, nullable=False),
        sa.Column("withdrawn_at", TIME, nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("rater_number", sa.Integer, sa.ForeignKey("raters.number"), nullable=False),
        sa.Column("item_id", sa.String(64), sa.ForeignKey("items.id"), nullable=False),
        sa.Column("left_is", sa.String(1), nullable=False),
        sa.Column("purpose", sa.String(10), nullable=False),
        sa.Column("own_upload", sa.Boolean, nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("lease_s", sa.Float, nullable=False),
        sa.CheckConstraint("left_is IN ('a', 'b')", name="assignment_has_a_left_side"),
        sa.CheckConstraint("purpose IN ('rate', 'gold', 'repeat')", name="assignment_has_a_purpose"),
    )
    op.create_index("ix_assignments_rater_number", "assignments", ["rater_number"])
    op.create_index("ix_assignments_issued_at", "assignments", ["issued_at"])
    added: list[sa.Column] = [
        sa.Column("comment", sa.Text, nullable=False, server_default=""),
        sa.Column("assignment_id", sa.String(36), sa.ForeignKey("assignments.id")),
        sa.Column("purpose", sa.String(10), nullable=False, server_default="rate"),
        sa.Column("late", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("own_upload", sa.Boolean, nullable=False, server_default=sa.false()),
    ]
    check = sa.CheckConstraint("purpose IN ('rate', 'gold', 'repeat')", name="rating_has_a_purpose")
    if op.get_bind().dialect.name == "sqlite":
        _write_ratings_anew(added, check)
    else:
        for column in added:
            op.add_column("ratings", column)
        op.create_check_constraint(str(check.name), "ratings", str(check.sqltext))
    op.create_table(
        "marks",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "judgements",
        sa.Column("rating_id", sa.String(36), sa.ForeignKey("ratings.id"), primary_key=True),
        sa.Column("side", sa.String(1), primary_key=True),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("artifact_removal", sa.Integer),
        sa.Column("faithfulness", sa.Integer),
        sa.Column("marks_sha256", sa.String(64), sa.ForeignKey("marks.sha256")),
        sa.CheckConstraint("side IN ('a', 'b')", name="judgement_is_of_a_or_b"),
        sa.CheckConstraint("artifact_removal BETWEEN 1 AND 5", name="artifact_removal_is_1_to_5"),
        sa.CheckConstraint("faithfulness BETWEEN 1 AND 5", name="faithfulness_is_1_to_5"),
    )
    op.create_index("ix_judgements_marks_sha256", "judgements", ["marks_sha256"])
    versions = sa.table("schema_version", sa.column("version", sa.Integer), sa.column("created_at", TIME))
    op.execute(versions.delete())
    op.execute(versions.insert().values(version=2, created_at=datetime.now(UTC)))


def _write_ratings_anew(added: list[sa.Column], check: sa.CheckConstraint) -> None:
    """SQLite can neither add a constraint nor AUTOINCREMENT to a table that is there: numbers must not be given again
    once the last rows can be withdrawn."""
    table = sa.Table("ratings", sa.MetaData(), autoload_with=op.get_bind())
    former = [column.name for column in table.columns]
    # Its name is `ratings` in the end, so its foreign key to itself is right only then.
    op.execute("ALTER TABLE ratings RENAME TO ratings_of_version_1")
    for index in ("ratings_of_item", "ratings_of_rater"):
        op.drop_index(index)
    vote = (
        "(action = 'vote' AND choice IN ('a', 'b', 'tie', 'both_bad', 'skip') AND left_is IN ('a', 'b')"
        " AND seconds >= 0) OR (action = 'retract' AND choice IS NULL AND supersedes IS NOT NULL)"
    )
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
        *added,
        sa.CheckConstraint(vote, name="rating_is_a_vote_or_a_retraction"),
        check,
        sqlite_autoincrement=True,
    )
    names = ", ".join(former)
    op.execute(f"INSERT INTO ratings ({names}) SELECT {names} FROM ratings_of_version_1 ORDER BY number")
    op.drop_table("ratings_of_version_1")
    op.create_index("ratings_of_item", "ratings", ["item_id"])
    op.create_index("ratings_of_rater", "ratings", ["rater_number", "number"])
