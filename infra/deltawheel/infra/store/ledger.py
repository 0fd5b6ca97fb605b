"""The stream's records: every insert under its id, and the first writer wins."""

from collections.abc import Sequence

from sqlalchemy import Connection, Table, bindparam, select, update

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.store import GroupEnd
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.part import Part, among, chunks, first_writer, insert_missing
from deltawheel.infra.store.rows import (
    assignment_row,
    closing_row,
    dead_letter_of,
    dead_letter_row,
    delta_rows,
    failed_end_row,
    judged_end_row,
    judgement_row,
    pair_row,
    prompt_failure_row,
    prompt_row,
    quarantine_row,
    reason_rows,
    trace_row,
)
from deltawheel.infra.store.slot_ends import select_slot_ends, slot_end_of
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    DEAD_LETTERS,
    JUDGEMENTS,
    PAIR_DELTAS,
    PAIRS,
    PROMPT_FAILURES,
    PROMPTS,
    QUARANTINE,
    QUARANTINE_REASONS,
    SLOT_ENDS,
    TRACES,
)

__all__ = ["LedgerWrites"]


class LedgerWrites(Part):
    """The writing half of the `Ledger` port; one method, one transaction."""

    def add_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Store prompts; return them as stored, in the order given."""
        given: dict[PromptKey, Prompt] = {}
        for prompt in prompts:
            given.setdefault(prompt.key, prompt)
        with self._database.writing() as connection:
            rows = [prompt_row(prompt, self._wheel) for prompt in given.values()]
            new = {PromptKey(*key) for key in insert_missing(connection, PROMPTS, rows)}
            known = [key for key in given if key not in new]
            held = given | _stored_prompts(connection, known)
        return [held[prompt.key] for prompt in prompts]

    def add_assignment(self, assignment: Assignment) -> Assignment:
        """Store who is asked, before anybody is."""
        row = assignment_row(assignment, self._wheel)
        with self._database.writing() as connection:
            return first_writer(connection, ASSIGNMENTS, row, assignment)

    def add_trace(self, trace: Trace) -> Trace:
        """Store a slot's trace."""
        row = trace_row(trace, self._wheel)
        with self._database.writing() as connection:
            return first_writer(connection, TRACES, row, trace)

    def add_judgement(self, judgement: Judgement) -> Judgement:
        """Store a judgement and its slot's end in one transaction.

        A slot that has failed meanwhile stays failed: the judgement is then kept as late.
        """
        row = judgement_row(judgement, self._wheel)
        with self._database.writing() as connection:
            stored = first_writer(connection, JUDGEMENTS, row, judgement)
            insert_missing(connection, SLOT_ENDS, [judged_end_row(stored, self._wheel)])
            return stored

    def add_slot_failure(self, failure: SlotFailed) -> SlotFailed | Judgement:
        """Store a slot's end; return what ended it, which may be an earlier judgement."""
        with self._database.writing() as connection:
            return self._end_slot(connection, failure)

    def _end_slot(self, connection: Connection, failure: SlotFailed) -> SlotFailed | Judgement:
        if insert_missing(connection, SLOT_ENDS, [failed_end_row(failure, self._wheel)]):
            return failure
        ends = SLOT_ENDS.c
        here = (
            (ends.prompt_id == failure.prompt_id)
            & (ends.round == failure.round)
            & (ends.slot == failure.slot)
            & (ends.attempt == failure.attempt)
        )
        return slot_end_of(connection.execute(select_slot_ends().where(here)).mappings().one())

    def add_prompt_failure(self, failure: PromptFailed) -> PromptFailed:
        """Store that nobody could be asked."""
        row = prompt_failure_row(failure, self._wheel)
        with self._database.writing() as connection:
            return first_writer(connection, PROMPT_FAILURES, row, failure)

    def close_groups(self, ends: Sequence[GroupEnd]) -> list[PreferencePair | QuarantinedPair]:
        """Store closings with their pairs; return the pair events that these groups now hold.

        Of a group that is closed already nothing is written: its pairs are those of the closing
        that came first, and these are returned. Order: as the ends were given, then by pair id.
        """
        first: dict[tuple[str, int, int], GroupEnd] = {}
        for end in ends:
            closing = end.closing
            first.setdefault((closing.prompt_id, closing.round, closing.attempt), end)
        with self._database.writing() as connection:
            rows = [closing_row(end.closing, self._wheel) for end in first.values()]
            new = insert_missing(connection, CLOSINGS, rows)
            self._add_ends(connection, [end for key, end in first.items() if key in new])
            keys = list(dict.fromkeys(end.closing.key for end in ends))
            return [event for part in chunks(keys) for event in _pair_events(connection, part)]

    def _add_ends(self, connection: Connection, ends: Sequence[GroupEnd]) -> None:
        if not ends:
            return
        pairs = [pair for end in ends for pair in end.pairs]
        quarantined = [pair for end in ends for pair in end.quarantined]
        wheel = self._wheel
        new = insert_missing(connection, PAIRS, [pair_row(pair, wheel) for pair in pairs])
        deltas = [row for p in pairs if (p.pair_id,) in new for row in delta_rows(p, wheel)]
        insert_missing(connection, PAIR_DELTAS, deltas)
        insert_missing(
            connection, QUARANTINE, [quarantine_row(pair, wheel) for pair in quarantined]
        )
        reasons = [row for pair in quarantined for row in reason_rows(pair, wheel)]
        insert_missing(connection, QUARANTINE_REASONS, reasons)
        _mark_closed(connection, [end.closing for end in ends])

    def add_dead_letter(
        self, letter: DeadLetter, slot_failure: SlotFailed | None = None
    ) -> SlotFailed | Judgement | None:
        """Store a dead letter, and in the same transaction the slot end that it causes.

        Return what ended the slot, which may be something earlier; None where it causes none.
        """
        with self._database.writing() as connection:
            insert_missing(connection, DEAD_LETTERS, [dead_letter_row(letter, self._wheel)])
            return self._end_slot(connection, slot_failure) if slot_failure else None

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        letters = DEAD_LETTERS.c
        newest = (
            select(letters.key, letters.value, letters.headers, letters.payload)
            .where(letters.wheel == self._wheel)
            .order_by(letters.died_at.desc(), letters.letter_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [dead_letter_of(row) for row in connection.execute(newest).mappings()]


def _stored_prompts(connection: Connection, keys: Sequence[PromptKey]) -> dict[PromptKey, Prompt]:
    rows = (
        row
        for part in chunks(keys)
        for row in connection.scalars(select(PROMPTS.c.payload).where(among(PROMPTS, part)))
    )
    return {prompt.key: prompt for prompt in map(Prompt.model_validate_json, rows)}


def _mark_closed(connection: Connection, closings: Sequence[Closing]) -> None:
    mark = (
        update(PROMPTS)
        .where(PROMPTS.c.prompt_id == bindparam("of_prompt"))
        .where(PROMPTS.c.round == bindparam("of_round"))
        .values(closed_at=bindparam("at"))
    )
    connection.execute(
        mark,
        [
            {"of_prompt": end.prompt_id, "of_round": end.round, "at": end.closed_at}
            for end in sorted(closings, key=lambda end: end.key)
        ],
    )


def _pair_events(
    connection: Connection, keys: Sequence[PromptKey]
) -> list[PreferencePair | QuarantinedPair]:
    place = {key: index for index, key in enumerate(keys)}
    found: list[tuple[int, str, PreferencePair | QuarantinedPair]] = []
    kinds: tuple[tuple[Table, type[PreferencePair | QuarantinedPair]], ...] = (
        (PAIRS, PreferencePair),
        (QUARANTINE, QuarantinedPair),
    )
    for table, record in kinds:
        held = select(table.c.prompt_id, table.c.round, table.c.pair_id, table.c.payload)
        for prompt_id, round_, pair_id, payload in connection.execute(
            held.where(among(table, keys))
        ):
            event = record.model_validate_json(payload)
            found.append((place[PromptKey(prompt_id, round_)], pair_id, event))
    return [event for _, _, event in sorted(found, key=lambda row: row[:2])]
