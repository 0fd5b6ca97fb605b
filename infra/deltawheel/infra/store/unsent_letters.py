"""Dead letters on their way to their topic: noted with the letter, gone once acknowledged."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.infra.store.loop_tables import UNSENT_LETTERS
from deltawheel.infra.store.part import Part, chunks
from deltawheel.infra.store.rows import dead_letter_of
from deltawheel.infra.store.tables import DEAD_LETTERS

__all__ = ["SqlUnsentLetters"]


class SqlUnsentLetters(Part):
    """The `UnsentLetters` port."""

    def unsent_letters(self, service: str, *, before: datetime, limit: int) -> list[DeadLetter]:
        """Return letters of a service that died before this and were not noted as sent."""
        letter, unsent = DEAD_LETTERS.c, UNSENT_LETTERS.c
        oldest = (
            select(letter.key, letter.value, letter.headers, letter.payload)
            .join(UNSENT_LETTERS, unsent.letter_id == letter.letter_id)
            .where(unsent.wheel == self._wheel, unsent.service == service, unsent.died_at < before)
            .order_by(unsent.died_at, unsent.letter_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [dead_letter_of(row) for row in connection.execute(oldest).mappings()]

    def note_sent(self, letter_ids: Sequence[str]) -> None:
        """The broker has acknowledged these."""
        with self._database.writing() as connection:
            for part in chunks(letter_ids):
                sent = UNSENT_LETTERS.c.letter_id.in_(part)
                connection.execute(delete(UNSENT_LETTERS).where(sent))
