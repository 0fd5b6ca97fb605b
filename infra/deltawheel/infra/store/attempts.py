"""Attempts: which one is current, and how an operator opens the next."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, exists, or_, select, update

from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.transition import Transition, TransitionKind
from deltawheel.infra.store.part import Part, among, chunks, insert_missing, same_attempt
from deltawheel.infra.store.rows import JUDGED, transition_row
from deltawheel.infra.store.tables import CLOSINGS, PROMPTS, SLOT_ENDS, TRANSITIONS

__all__ = ["LedgerAttempts", "current_attempts"]


class LedgerAttempts(Part):
    """The opening of attempts."""

    def open_attempts(
        self,
        keys: Sequence[PromptKey],
        *,
        kind: TransitionKind,
        by: str,
        reason: str,
        at: datetime,
        expires_at: datetime,
    ) -> list[Transition]:
        """Open the next attempt at each prompt that has something to try again."""
        with self._database.writing() as connection:
            return self._open_next(
                connection,
                keys,
                kind=kind,
                by=by,
                reason=reason,
                at=at,
                expires_at=expires_at,
            )

    def _open_next(
        self,
        connection: Connection,
        keys: Sequence[PromptKey],
        *,
        kind: TransitionKind,
        by: str,
        reason: str,
        at: datetime,
        expires_at: datetime,
    ) -> list[Transition]:
        found = self._with_failures(connection, sorted(set(keys)))
        wanted = [
            Transition(
                prompt_id=key.prompt_id,
                round=key.round,
                attempt=attempt + 1,
                kind=kind,
                by=by,
                reason=reason,
                opened_at=at,
                expires_at=expires_at,
            )
            for key, attempt in found.items()
        ]
        rows = [transition_row(each, self._wheel) for each in wanted]
        new = insert_missing(connection, TRANSITIONS, rows)
        opened = [each for each in wanted if (*each.key, each.attempt) in new]
        if opened:
            _mark_open(connection, opened)
            self._keep_judged(connection, opened)
        return opened

    def _with_failures(
        self, connection: Connection, keys: Sequence[PromptKey]
    ) -> dict[PromptKey, int]:
        """Return the current attempt of those whose current attempt leaves something to do."""
        failed = same_attempt(SLOT_ENDS, PROMPTS), SLOT_ENDS.c.kind != JUDGED
        closed = same_attempt(CLOSINGS, PROMPTS)
        is_paired = CLOSINGS.c.outcome == Outcome.PAIRED.value
        failed_slot = exists().where(*failed)
        unpaired = exists().where(closed, ~is_paired)
        paired = exists().where(closed, is_paired)
        those = select(PROMPTS.c.prompt_id, PROMPTS.c.round, PROMPTS.c.attempt).where(
            PROMPTS.c.wheel == self._wheel,
            or_(failed_slot.correlate(PROMPTS), unpaired.correlate(PROMPTS)),
            ~paired.correlate(PROMPTS),
        )
        return {
            PromptKey(prompt_id, round_): attempt
            for part in chunks(keys)
            for prompt_id, round_, attempt in connection.execute(those.where(among(PROMPTS, part)))
        }

    def _keep_judged(self, connection: Connection, opened: Sequence[Transition]) -> None:
        """Let the slots that were judged count as judged in the new attempt."""
        attempts = {each.key: each.attempt for each in opened}
        rows = [
            {**row, "attempt": attempts[PromptKey(row["prompt_id"], row["round"])]}
            for part in chunks(list(attempts))
            for row in connection.execute(
                select(SLOT_ENDS).where(among(SLOT_ENDS, part), SLOT_ENDS.c.kind == JUDGED)
            ).mappings()
            if row["attempt"] == attempts[PromptKey(row["prompt_id"], row["round"])] - 1
        ]
        insert_missing(connection, SLOT_ENDS, rows)


def current_attempts(connection: Connection, keys: Sequence[PromptKey]) -> dict[PromptKey, int]:
    """Return at which attempt each of these prompts is."""
    columns = PROMPTS.c.prompt_id, PROMPTS.c.round, PROMPTS.c.attempt
    return {
        PromptKey(prompt_id, round_): attempt
        for part in chunks(sorted(set(keys)))
        for prompt_id, round_, attempt in connection.execute(
            select(*columns).where(among(PROMPTS, part))
        )
    }


def _mark_open(connection: Connection, opened: Sequence[Transition]) -> None:
    mark = (
        update(PROMPTS)
        .where(PROMPTS.c.prompt_id == bindparam("of_prompt"))
        .where(PROMPTS.c.round == bindparam("of_round"))
        .values(attempt=bindparam("to_attempt"), closed_at=None)
    )
    connection.execute(
        mark,
        [
            {"of_prompt": each.prompt_id, "of_round": each.round, "to_attempt": each.attempt}
            for each in opened
        ],
    )
