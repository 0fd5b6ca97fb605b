"""Probes: what generators made of held-out prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "probes",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("probe_id", KEY, nullable=False),
        sa.Column("probed_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("wheel", "probe_id", name="pk_probes"),
    )
    op.create_index("ix_probes_wheel_probed_at", "probes", ["wheel", "probed_at"])


def downgrade() -> None:
    """Forget them: ratings are the declared priors again."""
    op.drop_table("probes")
