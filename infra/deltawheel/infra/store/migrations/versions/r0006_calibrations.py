"""Calibrations: the standard error of a judge's scores."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "calibrations",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("calibration_id", KEY, nullable=False),
        sa.Column("judge_revision", KEY, nullable=False),
        sa.Column("rubric_digest", KEY, nullable=False),
        sa.Column("measured_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("calibration_id", name="pk_calibrations"),
    )
    op.create_index(
        "ix_calibrations_wheel_judge_revision_rubric_digest_measured_at",
        "calibrations",
        ["wheel", "judge_revision", "rubric_digest", "measured_at"],
    )


def downgrade() -> None:
    """Forget them; deltas keep the variances that they were stored with."""
    op.drop_table("calibrations")
