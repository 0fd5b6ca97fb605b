"""Indexes from which is counted what members of the pool have taken, and what came of it."""

from alembic import op

revision = "0005"
down_revision = "0004"

OLD = ("wheel", "generated_at", "completion_tokens")
NEW = ("wheel", "generated_at", "generator", "prompt_tokens", "completion_tokens")


def upgrade() -> None:
    """Put the index that names generators in the place of one that it can stand for."""
    op.create_index("ix_pairs_yield", "pairs", ["wheel", "order_delta", "generator_delta"])
    op.create_index("ix_traces_spending", "traces", list(NEW))
    op.drop_index("ix_traces_wheel_generated_at_completion_tokens", "traces")


def downgrade() -> None:
    """Put the smaller index back."""
    op.drop_index("ix_pairs_yield", "pairs")
    op.create_index("ix_traces_wheel_generated_at_completion_tokens", "traces", list(OLD))
    op.drop_index("ix_traces_spending", "traces")
