"""The index of open prompts is made anew, so that SQLite takes it.

Of two indexes that would do as well it takes the one made last, unless it has been told how full
they are (ANALYZE). That was the index of all prompts: whatever asks for open ones read them all.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Drop it and make it again; it is small, for only open prompts stand in it."""
    is_open = sa.text("closed_at IS NULL")
    op.drop_index("ix_prompts_open", "prompts")
    op.create_index(
        "ix_prompts_open",
        "prompts",
        ["wheel", "accepted_at"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def downgrade() -> None:
    """Leave it: it is what it was."""
