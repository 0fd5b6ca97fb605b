"""Judgements by a jury: found by an index, however few of all judgements they are."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Count the opinions of each judgement, and index those that have any."""
    column = sa.Column("num_opinions", sa.Integer(), nullable=False, server_default="0")
    op.add_column("judgements", column)
    is_by_jury = sa.text("num_opinions > 0")
    op.create_index(
        "ix_judgements_by_jury",
        "judgements",
        ["wheel", "judged_at"],
        sqlite_where=is_by_jury,
        postgresql_where=is_by_jury,
    )


def downgrade() -> None:
    """Count them no more; SQLite makes the table anew, so that it is what it was."""
    op.drop_index("ix_judgements_by_jury", "judgements")
    is_sqlite = op.get_context().dialect.name == "sqlite"
    changing = op.batch_alter_table("judgements", recreate="always" if is_sqlite else "never")
    with changing as judgements:
        judgements.drop_column("num_opinions")
