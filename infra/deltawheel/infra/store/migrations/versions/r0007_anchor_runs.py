"""Runs of the anchors: whether a judge still scores as it did."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "anchor_runs",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("judge_revision", KEY, nullable=False),
        sa.Column("rubric_digest", KEY, nullable=False),
        sa.Column("verdict", KEY, nullable=False),
        sa.Column("ran_at", MOMENT, nullable=False),
        sa.Column("accepted_at", MOMENT, nullable=True),
        sa.Column("accepted_by", KEY, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_anchor_runs"),
    )
    op.create_index(
        "ix_anchor_runs_wheel_judge_revision_rubric_digest_ran_at",
        "anchor_runs",
        ["wheel", "judge_revision", "rubric_digest", "ran_at"],
    )


def downgrade() -> None:
    """Forget them: the next run is a baseline, whatever the judge has become."""
    op.drop_table("anchor_runs")
