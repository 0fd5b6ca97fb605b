"""Attempts: an operator may have a prompt tried again."""

from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0002"
down_revision = "0001"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Give every prompt its first attempt, and make room for further ones."""
    op.create_table(
        "transitions",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", "attempt", name="pk_transitions"),
    )
    op.add_column("prompts", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Forget who opened which attempt; what further attempts have stored stays."""
    with _changing_prompts() as prompts:
        prompts.drop_column("attempt")
    op.drop_table("transitions")


def _changing_prompts() -> AbstractContextManager[BatchOperations]:
    """SQLite makes the table anew, so that it is what a store made today has."""
    is_sqlite = op.get_context().dialect.name == "sqlite"
    return op.batch_alter_table("prompts", recreate="always" if is_sqlite else "never")
