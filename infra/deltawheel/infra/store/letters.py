"""Dead letters as an operator looks after them, and dead-lettered prompts that have none."""

import heapq
import json
from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    String,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.letters import EntryKind, LetterEntry, LetterMove, MoveKind, Replayed
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.transition import TransitionKind
from deltawheel.infra.store.attempts import LedgerAttempts, current_attempts
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import among, chunks, insert_missing, same_prompt
from deltawheel.infra.store.rows import dead_letter_of, letter_move_row
from deltawheel.infra.store.tables import CLOSINGS, DEAD_LETTERS, LETTER_MOVES, PROMPTS

__all__ = ["SqlLetters"]

_ROWS_AT_ONCE = 1_000
_LETTER = DEAD_LETTERS.c.letter_id
_PROMPT = CLOSINGS.c.prompt_id + ":" + cast(CLOSINGS.c.round, String)
_PROMPT_MOVE = _PROMPT + ":" + cast(CLOSINGS.c.attempt, String)


class SqlLetters(LedgerAttempts):
    """The `Letters` port."""

    def letter_entries(
        self, *, after: LetterEntry | None = None, with_moved: bool = False
    ) -> Generator[LetterEntry, None, None]:
        """Yield what nobody has moved, or everything; the newest first."""
        records, prompts = _select_records(self._wheel), _select_prompts(self._wheel)
        if not with_moved:
            records = records.where(LETTER_MOVES.c.letter_id.is_(None))
            prompts = prompts.where(LETTER_MOVES.c.letter_id.is_(None))
        if after is not None:
            records = records.where(_is_behind(after, DEAD_LETTERS.c.died_at, _LETTER))
            prompts = prompts.where(_is_behind(after, CLOSINGS.c.closed_at, _PROMPT))
        records = records.order_by(DEAD_LETTERS.c.died_at.desc(), _LETTER.desc())
        prompts = prompts.order_by(CLOSINGS.c.closed_at.desc(), _PROMPT.desc())
        with self._database.reading() as connection:
            streaming = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            with streaming.execute(records) as letters, streaming.execute(prompts) as closings:
                yield from heapq.merge(
                    map(_record_entry, letters.mappings()),
                    map(_prompt_entry, closings.mappings()),
                    key=lambda entry: (entry.died_at, entry.entry_id),
                    reverse=True,
                )

    def find_entries(self, entry_ids: Sequence[str]) -> dict[str, LetterEntry]:
        """Return these, moved or not; those that do not exist are absent."""
        wanted = [entry_id for entry_id in dict.fromkeys(entry_ids) if is_key(entry_id)]
        found: dict[str, LetterEntry] = {}
        with self._database.reading() as connection:
            for part in chunks(wanted):
                here = _select_records(self._wheel).where(_LETTER.in_(part))
                for row in connection.execute(here).mappings():
                    found[row["letter_id"]] = _record_entry(row)
                keys = [key for entry_id in part if (key := _key_in(entry_id))]
                ended = _select_prompts(self._wheel).where(among(CLOSINGS, keys))
                for row in connection.execute(ended.order_by(CLOSINGS.c.attempt)).mappings():
                    entry = _prompt_entry(row)
                    found[entry.entry_id] = entry
        return found

    def letters_by_id(self, letter_ids: Sequence[str]) -> dict[str, DeadLetter]:
        """Return these letters with their bytes."""
        letter = DEAD_LETTERS.c
        columns = letter.letter_id, letter.key, letter.value, letter.headers, letter.payload
        mine = select(*columns).where(letter.wheel == self._wheel)
        with self._database.reading() as connection:
            return {
                row["letter_id"]: dead_letter_of(row)
                for part in chunks(letter_ids)
                for row in connection.execute(mine.where(letter.letter_id.in_(part))).mappings()
            }

    def next_attempts(self, keys: Sequence[PromptKey]) -> dict[PromptKey, int]:
        """Return which attempt a replay would open at each prompt that leaves something to do."""
        with self._database.reading() as connection:
            found = self._with_failures(connection, sorted(set(keys)))
        return {key: attempt + 1 for key, attempt in found.items()}

    def replay_prompts(
        self,
        entries: Sequence[LetterEntry],
        *,
        by: str,
        reason: str,
        at: datetime,
        expires_at: datetime,
    ) -> Replayed:
        """Move entries and open the next attempt of their prompts, in one transaction."""

        def moved(letter_id: str) -> LetterMove:
            return LetterMove(
                letter_id=letter_id, kind=MoveKind.REPLAYED, by=by, reason=reason, moved_at=at
            )

        with self._database.writing() as connection:
            new = self._add_moves(connection, [moved(entry.move_id) for entry in entries])
            opened = self._open_next(
                connection,
                _still_to_open(connection, [each for each in entries if each.move_id in new]),
                kind=TransitionKind.REPLAY,
                by=by,
                reason=reason,
                at=at,
                expires_at=expires_at,
            )
            beside = _unmoved_of(connection, [transition.key for transition in opened])
            new |= self._add_moves(connection, [moved(letter_id) for letter_id in beside])
        return Replayed(moved=frozenset(new), opened={each.key: each for each in opened})

    def move_letters(self, moves: Sequence[LetterMove]) -> set[str]:
        """Store moves; return the ids of those that are new."""
        with self._database.writing() as connection:
            return self._add_moves(connection, moves)

    def _add_moves(self, connection: Connection, moves: Sequence[LetterMove]) -> set[str]:
        rows = [letter_move_row(move, self._wheel) for move in moves]
        return {letter_id for (letter_id,) in insert_missing(connection, LETTER_MOVES, rows)}


def _select_records(wheel: str) -> Select[Any]:
    letter, move = DEAD_LETTERS.c, LETTER_MOVES.c
    is_held = and_(same_prompt(PROMPTS, DEAD_LETTERS), PROMPTS.c.wheel == letter.wheel)
    return (
        select(
            letter.letter_id,
            letter.payload,
            func.coalesce(func.length(letter.value), 0).label("num_bytes"),
            PROMPTS.c.domain,
            move.payload.label("move"),
        )
        .outerjoin(PROMPTS, is_held)
        .outerjoin(LETTER_MOVES, move.letter_id == letter.letter_id)
        .where(letter.wheel == wheel)
    )


def _select_prompts(wheel: str) -> Select[Any]:
    ended, move = CLOSINGS.c, LETTER_MOVES.c
    return (
        select(
            ended.prompt_id,
            ended.round,
            ended.attempt,
            ended.closed_at,
            ended.payload,
            PROMPTS.c.domain,
            move.payload.label("move"),
        )
        .join(PROMPTS, same_prompt(PROMPTS, CLOSINGS))
        .outerjoin(LETTER_MOVES, move.letter_id == _PROMPT_MOVE)
        .where(
            ended.wheel == wheel,
            ended.outcome == Outcome.DEAD_LETTERED.value,
            or_(move.letter_id.is_not(None), _lies_there()),
        )
    )


def _lies_there() -> ColumnElement[bool]:
    """Return the condition that a closing is its prompt's current end, and no letter tells of it.

    Where a letter of the prompt lies there, that stands for it; where one was dropped, the
    operator has seen it.
    """
    letter, move = DEAD_LETTERS.c, LETTER_MOVES.alias("letter_move").c
    with_letter = (
        exists()
        .where(
            same_prompt(DEAD_LETTERS, CLOSINGS),
            letter.wheel == CLOSINGS.c.wheel,
            ~exists()
            .where(
                move.letter_id == letter.letter_id,
                or_(
                    move.kind != MoveKind.DROPPED.value,
                    letter.attempt < CLOSINGS.c.attempt,
                ),
            )
            .correlate(DEAD_LETTERS, CLOSINGS),
        )
        .correlate(CLOSINGS)
    )
    return and_(CLOSINGS.c.attempt == PROMPTS.c.attempt, ~with_letter)


def _is_behind(
    entry: LetterEntry, time: ColumnElement[datetime], entry_id: ColumnElement[str]
) -> ColumnElement[bool]:
    return or_(time < entry.died_at, and_(time == entry.died_at, entry_id < entry.entry_id))


def _key_in(entry_id: str) -> PromptKey | None:
    prompt_id, _, round_ = entry_id.rpartition(":")
    return PromptKey(prompt_id, int(round_)) if prompt_id and round_.isdecimal() else None


def _still_to_open(connection: Connection, entries: Sequence[LetterEntry]) -> list[PromptKey]:
    """Return the prompts to try again: not those of which another attempt was opened since."""
    at = current_attempts(connection, [entry.prompt_key for entry in entries if entry.prompt_key])
    return [
        entry.prompt_key
        for entry in entries
        if entry.prompt_key
        and (entry.kind is EntryKind.RECORD or at.get(entry.prompt_key) == entry.attempt)
    ]


def _unmoved_of(connection: Connection, keys: Sequence[PromptKey]) -> list[str]:
    is_moved = exists().where(LETTER_MOVES.c.letter_id == _LETTER).correlate(DEAD_LETTERS)
    return [
        letter_id
        for part in chunks(keys)
        for letter_id in connection.scalars(
            select(_LETTER).where(among(DEAD_LETTERS, part), ~is_moved)
        )
    ]


def _record_entry(row: RowMapping) -> LetterEntry:
    letter = DeadLetter.model_validate({**json.loads(row["payload"]), "key": None, "value": None})
    return LetterEntry(
        kind=EntryKind.RECORD,
        entry_id=row["letter_id"],
        attempt=letter.attempt,
        reason=letter.reason,
        died_at=letter.died_at,
        service=letter.service,
        topic=letter.topic,
        error=letter.error,
        num_bytes=row["num_bytes"],
        prompt_key=letter.prompt_key,
        domain=row["domain"],
        move=_move_in(row),
    )


def _prompt_entry(row: RowMapping) -> LetterEntry:
    return LetterEntry(
        kind=EntryKind.PROMPT,
        entry_id=f"{row['prompt_id']}:{row['round']}",
        attempt=row["attempt"],
        reason=json.loads(row["payload"])["reason"],
        died_at=row["closed_at"],
        prompt_key=PromptKey(row["prompt_id"], row["round"]),
        domain=row["domain"],
        move=_move_in(row),
    )


def _move_in(row: RowMapping) -> LetterMove | None:
    return LetterMove.model_validate_json(row["move"]) if row["move"] else None
