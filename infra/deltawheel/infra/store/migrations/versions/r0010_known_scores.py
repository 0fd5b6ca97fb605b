"""Scores that are known: the same text is not judged twice."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "known_scores",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("scores_id", KEY, nullable=False),
        sa.Column("judge_revision", KEY, nullable=False),
        sa.Column("scored_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scores_id", name="pk_known_scores"),
    )


def downgrade() -> None:
    """Forget them; judgements keep the scores that they were stored with."""
    op.drop_table("known_scores")
