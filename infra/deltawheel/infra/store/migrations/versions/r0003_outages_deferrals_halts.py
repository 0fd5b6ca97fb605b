"""What interrupts the stream: outages, deferred records, halted partitions, letters to be sent."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the five tables; of letters stored before, all count as sent."""
    op.create_table(
        "outages",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("dependency", KEY, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("wheel", "dependency", "began_at", name="pk_outages"),
    )
    op.create_table(
        "deferrals",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("deferral_id", KEY, nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("topic", KEY, nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("dependency", KEY, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("prompt_id", KEY, nullable=True),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("deferred_at", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("deadline_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("deferral_id", name="pk_deferrals"),
    )
    op.create_index(
        "ix_deferrals_wheel_service_due_at", "deferrals", ["wheel", "service", "due_at"]
    )
    op.create_table(
        "deferred_prompts",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("deferred_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", name="pk_deferred_prompts"),
    )
    op.create_table(
        "halts",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("topic", KEY, nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("halted_at", MOMENT, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("resumed_at", MOMENT, nullable=True),
        sa.Column("resumed_by", KEY, nullable=True),
        sa.PrimaryKeyConstraint(
            "wheel", "service", "topic", "partition", "halted_at", name="pk_halts"
        ),
    )
    is_halted = sa.text("resumed_at IS NULL")
    op.create_index(
        "ix_halts_open",
        "halts",
        ["wheel", "service", "topic", "partition"],
        unique=True,
        sqlite_where=is_halted,
        postgresql_where=is_halted,
    )
    op.create_table(
        "unsent_letters",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("letter_id", KEY, nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("died_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("letter_id", name="pk_unsent_letters"),
    )


def downgrade() -> None:
    """Forget all of it; what was deferred is still owed by its prompt, and published again."""
    op.drop_table("unsent_letters")
    op.drop_table("halts")
    op.drop_table("deferred_prompts")
    op.drop_table("deferrals")
    op.drop_table("outages")
