"""The stream's records: every insert under its id, and the first writer wins."""

from collections.abc import Sequence
from itertools import islice, product

from sqlalchemy import Connection, Table, bindparam, select, update

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.store import GroupEnd
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.attempts import current_attempts
from deltawheel.infra.store.deferrals import end_deferrals
from deltawheel.infra.store.loop_tables import UNSENT_LETTERS
from deltawheel.infra.store.part import Part, among, chunks, first_writers, insert_missing
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
    unsent_letter_row,
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

_SlotKey = tuple[str, int, int, int]
_PairEvent = PreferencePair | QuarantinedPair


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

    def add_assignments(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Store who is asked, before anybody is."""
        rows = [assignment_row(assignment, self._wheel) for assignment in assignments]
        with self._database.writing() as connection:
            return first_writers(connection, ASSIGNMENTS, rows, assignments)

    def add_traces(self, traces: Sequence[Trace]) -> list[Trace]:
        """Store slots' traces."""
        rows = [trace_row(trace, self._wheel) for trace in traces]
        with self._database.writing() as connection:
            return first_writers(connection, TRACES, rows, traces)

    def add_judgements(self, judgements: Sequence[Judgement]) -> list[Judgement]:
        """Store judgements and, in the same transaction, the ends of their slots.

        A slot that has failed meanwhile stays failed: the judgement is then kept as late.
        """
        rows = [judgement_row(judgement, self._wheel) for judgement in judgements]
        with self._database.writing() as connection:
            stored = first_writers(connection, JUDGEMENTS, rows, judgements)
            attempts = current_attempts(connection, [judgement.key for judgement in stored])
            ends = [
                judged_end_row(each, self._wheel, attempt=attempts.get(each.key, 1))
                for each in stored
            ]
            insert_missing(connection, SLOT_ENDS, ends)
            return stored

    def add_slot_failures(self, failures: Sequence[SlotFailed]) -> list[SlotFailed | Judgement]:
        """Store slots' ends; return what ended them, which may be an earlier judgement."""
        with self._database.writing() as connection:
            return self._end_slots(connection, failures)

    def _end_slots(
        self, connection: Connection, failures: Sequence[SlotFailed]
    ) -> list[SlotFailed | Judgement]:
        first: dict[_SlotKey, SlotFailed] = {}
        for failure in failures:
            first.setdefault(_slot_key(failure), failure)
        rows = [failed_end_row(failure, self._wheel) for failure in first.values()]
        new = insert_missing(connection, SLOT_ENDS, rows)
        ends: dict[_SlotKey, SlotFailed | Judgement] = dict(first)
        for part in chunks([failure for key, failure in first.items() if key not in new]):
            here = among(SLOT_ENDS, [failure.key for failure in part])
            for row in connection.execute(select_slot_ends().where(here)).mappings():
                ends[row["prompt_id"], row["round"], row["slot"], row["attempt"]] = slot_end_of(row)
        return [ends[_slot_key(failure)] for failure in failures]

    def add_prompt_failures(self, failures: Sequence[PromptFailed]) -> list[PromptFailed]:
        """Store that nobody could be asked."""
        rows = [prompt_failure_row(failure, self._wheel) for failure in failures]
        with self._database.writing() as connection:
            return first_writers(connection, PROMPT_FAILURES, rows, failures)

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
            closed = [end for key, end in first.items() if key in new]
            self._add_ends(connection, closed)
            # Before its first attempt ends a group holds no pair, so what it holds now is known.
            held = {end.closing.key: _events_of(end) for end in closed if end.closing.attempt == 1}
            keys = list(dict.fromkeys(end.closing.key for end in ends))
            held |= _pair_events(connection, [key for key in keys if key not in held])
        return [event for key in keys for event in held.get(key, ())]

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

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        """Store dead letters, and in the same transaction the slot ends that they cause.

        Return, for each, what ended those slots, which may be something earlier.
        """
        letters = [burial.letter for burial in burials]
        failures = [failure for burial in burials for failure in burial.slot_failures]
        rows = [dead_letter_row(letter, self._wheel) for letter in letters]
        unsent = [unsent_letter_row(letter, self._wheel) for letter in letters]
        with self._database.writing() as connection:
            insert_missing(connection, DEAD_LETTERS, rows)
            insert_missing(connection, UNSENT_LETTERS, unsent)
            end_deferrals(connection, [b.deferral_id for b in burials if b.deferral_id])
            ends = iter(self._end_slots(connection, failures))
        return [list(islice(ends, len(burial.slot_failures))) for burial in burials]

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


def _slot_key(failure: SlotFailed) -> _SlotKey:
    return failure.prompt_id, failure.round, failure.slot, failure.attempt


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
        .where(PROMPTS.c.attempt == bindparam("of_attempt"))
        .values(closed_at=bindparam("at"))
    )
    connection.execute(
        mark,
        [
            {
                "of_prompt": end.prompt_id,
                "of_round": end.round,
                "of_attempt": end.attempt,
                "at": end.closed_at,
            }
            for end in sorted(closings, key=lambda end: end.key)
        ],
    )


def _events_of(end: GroupEnd) -> list[_PairEvent]:
    events: list[tuple[str, _PairEvent]] = [(pair.pair_id, pair) for pair in end.pairs]
    events += [(each.pair.pair_id, each) for each in end.quarantined]
    return [event for _, event in sorted(events, key=lambda item: item[0])]


def _pair_events(
    connection: Connection, keys: Sequence[PromptKey]
) -> dict[PromptKey, list[_PairEvent]]:
    """Read the pairs of these groups; one that was released from quarantine is a pair only."""
    found: dict[str, tuple[PromptKey, _PairEvent]] = {}
    kinds: tuple[tuple[Table, type[_PairEvent]], ...] = (
        (PAIRS, PreferencePair),
        (QUARANTINE, QuarantinedPair),
    )
    for (table, record), part in product(kinds, chunks(keys)):
        held = select(table.c.prompt_id, table.c.round, table.c.pair_id, table.c.payload)
        for prompt_id, round_, pair_id, payload in connection.execute(
            held.where(among(table, part))
        ):
            event = record.model_validate_json(payload)
            found.setdefault(pair_id, (PromptKey(prompt_id, round_), event))
    events: dict[PromptKey, list[_PairEvent]] = {}
    for _, (key, event) in sorted(found.items(), key=lambda item: item[0]):
        events.setdefault(key, []).append(event)
    return events
