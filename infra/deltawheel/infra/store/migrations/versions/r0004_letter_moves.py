"""What operators did about dead letters, and which prompts these speak of."""

import json
from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0004"
down_revision = "0003"

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
COLUMNS = ("prompt_id", "round", "attempt")
LETTERS = sa.table(
    "dead_letters",
    sa.column("letter_id", sa.String()),
    sa.column("payload", sa.Text()),
    sa.column("prompt_id", sa.String()),
    sa.column("round", sa.Integer()),
)
PAGE = 1_000


def upgrade() -> None:
    """Make the table; give every letter the prompt that its record names, as far as it is an id."""
    op.create_table(
        "letter_moves",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("letter_id", KEY, nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("moved_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("letter_id", name="pk_letter_moves"),
    )
    op.add_column("dead_letters", sa.Column("prompt_id", KEY, nullable=True))
    op.add_column("dead_letters", sa.Column("round", sa.Integer(), nullable=True))
    op.add_column(
        "dead_letters", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1")
    )
    op.create_index("ix_dead_letters_prompt_id_round", "dead_letters", ["prompt_id", "round"])
    _name_prompts(op.get_bind())


def _name_prompts(connection: sa.Connection) -> None:
    letter = LETTERS.c
    change = (
        sa.update(LETTERS)
        .where(letter.letter_id == sa.bindparam("of_letter"))
        .values(prompt_id=sa.bindparam("to_prompt"), round=sa.bindparam("to_round"))
    )
    last = ""
    while rows := connection.execute(
        sa.select(letter.letter_id, letter.payload)
        .where(letter.letter_id > last)
        .order_by(letter.letter_id)
        .limit(PAGE)
    ).all():
        last = rows[-1][0]
        named = [
            {"of_letter": letter_id, "to_prompt": key[0], "to_round": key[1]}
            for letter_id, payload in rows
            if (key := json.loads(payload).get("prompt_key")) and _is_key(key[0])
        ]
        if named:
            connection.execute(change, named)


def _is_key(text: str) -> bool:
    """Whether both databases can index it; a record may name a prompt by no possible id."""
    raw = text.encode(errors="replace")
    return "\0" not in text and raw.decode() == text and len(raw) <= 512


def downgrade() -> None:
    """Forget who replayed and dropped what: all letters lie there again."""
    op.drop_index("ix_dead_letters_prompt_id_round", "dead_letters")
    with _changing_letters() as letters:
        for column in COLUMNS:
            letters.drop_column(column)
    op.drop_table("letter_moves")


def _changing_letters() -> AbstractContextManager[BatchOperations]:
    """SQLite makes the table anew, so that it is what a store made today has."""
    is_sqlite = op.get_context().dialect.name == "sqlite"
    return op.batch_alter_table("dead_letters", recreate="always" if is_sqlite else "never")
