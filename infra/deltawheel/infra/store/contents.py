"""Contents: whether the columns of a row say what its payload says.

A payload is what is given back, the columns are what is counted and searched: they are written
together, and nothing of ours ever changes one without the other.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, Table, select

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.evidence import Finding
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.trace import Trace
from deltawheel.contracts.transition import Transition
from deltawheel.infra.store import rows
from deltawheel.infra.store.part import Row, chunks, same_attempt
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
    SLOT_ENDS,
    TRACES,
    TRANSITIONS,
)

__all__ = ["contents"]

_ROWS_AT_ONCE: Final = 500
_LETTERS_AT_ONCE: Final = 16
"""Each may be as large as a message."""


class _Written(NamedTuple):
    """How the rows of a table are written."""

    table: Table
    record: type[Record]
    row: Callable[[Any, str], Row]


_WRITTEN: Final = (
    _Written(PROMPTS, Prompt, rows.prompt_row),
    _Written(ASSIGNMENTS, Assignment, rows.assignment_row),
    _Written(TRACES, Trace, rows.trace_row),
    _Written(JUDGEMENTS, Judgement, rows.judgement_row),
    _Written(SLOT_ENDS, SlotFailed, rows.failed_end_row),
    _Written(PROMPT_FAILURES, PromptFailed, rows.prompt_failure_row),
    _Written(CLOSINGS, Closing, rows.closing_row),
    _Written(TRANSITIONS, Transition, rows.transition_row),
    _Written(PAIRS, PreferencePair, rows.pair_row),
    _Written(QUARANTINE, QuarantinedPair, rows.quarantine_row),
)


def contents(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Yield what differs."""
    streaming = connection.execution_options(yield_per=_ROWS_AT_ONCE)
    for written in _WRITTEN:
        table = written.table
        every = select(table).where(table.c.wheel == wheel, table.c.payload.is_not(None))
        with streaming.execute(every) as found:
            for row in found.mappings():
                yield from _compared(written, row, wheel)
    yield from _wrong_marks(connection, wheel)
    yield from _unsaid_failures(connection, wheel)
    yield from _deltas(connection, wheel)
    yield from _letters(connection, wheel)


def _wrong_marks(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Find prompts that are marked as closed at another time than their closing says."""
    is_its = same_attempt(CLOSINGS, PROMPTS)
    wrong = (
        select(*PROMPTS.columns, CLOSINGS.c.closed_at.label("ended_at"))
        .join(CLOSINGS, is_its)
        .where(PROMPTS.c.wheel == wheel, PROMPTS.c.closed_at != CLOSINGS.c.closed_at)
    )
    for row in connection.execute(wrong).mappings():
        fact = f"prompts.closed_at is {row['closed_at']!r}, but it closed at {row['ended_at']!r}"
        yield _finding(PROMPTS, row, fact)


def _unsaid_failures(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Find slots that failed without saying why: only a judged one has no payload."""
    end = SLOT_ENDS.c
    unsaid = select(SLOT_ENDS).where(
        end.wheel == wheel, end.kind != rows.JUDGED, end.payload.is_(None)
    )
    for row in connection.execute(unsaid).mappings():
        yield _finding(SLOT_ENDS, row, f"a slot that is {row['kind']} without a reason")


def _compared(written: _Written, row: RowMapping, wheel: str) -> Iterator[Finding]:
    name = written.table.name
    try:
        record = written.record.model_validate_json(row["payload"])
    except ValidationError as error:
        yield _finding(written.table, row, f"the payload in {name} is no {_first(error)}")
        return
    given = written.row(record, wheel)
    for column, value in given.items():
        if column != "payload" and row[column] != value:
            fact = f"{name}.{column} is {row[column]!r}, but its payload says {value!r}"
            yield _finding(written.table, row, fact)


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{error.title}: {'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"


def _deltas(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Compare each pair's deltas with the rows that ranking reads."""
    streaming = connection.execution_options(yield_per=_ROWS_AT_ONCE)
    every = select(PAIRS.c.pair_id, PAIRS.c.payload).where(PAIRS.c.wheel == wheel)
    with streaming.execute(every) as found:
        for part in found.partitions():
            pairs = {row.pair_id: row.payload for row in part}
            yield from _deltas_of(connection, pairs, wheel)


def _letters(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Compare dead letters with their ids, which name their bytes, and with what they say."""
    streaming = connection.execution_options(yield_per=_LETTERS_AT_ONCE)
    every = select(DEAD_LETTERS).where(DEAD_LETTERS.c.wheel == wheel)
    with streaming.execute(every) as found:
        for row in found.mappings():
            try:
                letter = rows.dead_letter_of(row)
            except ValueError as error:
                yield _finding(DEAD_LETTERS, row, f"a dead letter that cannot be read: {error}")
                continue
            given = rows.dead_letter_row(letter, wheel)
            for column in sorted(given.keys() - {"payload"}):
                if row[column] != given[column]:
                    fact = f"dead_letters.{column} is not what the letter's bytes and payload say"
                    yield _finding(DEAD_LETTERS, row, fact)


def _deltas_of(
    connection: Connection, payloads: Mapping[str, str], wheel: str
) -> Iterator[Finding]:
    held: dict[tuple[str, str], RowMapping] = {}
    for ids in chunks(list(payloads)):
        for row in connection.execute(
            select(PAIR_DELTAS).where(PAIR_DELTAS.c.pair_id.in_(ids))
        ).mappings():
            held[row["pair_id"], row["dimension"]] = row
    for payload in payloads.values():
        try:
            pair = PreferencePair.model_validate_json(payload)
        except ValidationError:
            continue  # named already
        for given in rows.delta_rows(pair, wheel):
            found = held.get((given["pair_id"], given["dimension"]))
            for fact in _wrong_delta(given, found):
                yield Finding(
                    kind="missing" if found is None else "contradictory",
                    fact=fact,
                    prompt_id=pair.key.prompt_id,
                    round=pair.key.round,
                    rows=(pair.pair_id,),
                )


def _wrong_delta(given: Row, found: RowMapping | None) -> Iterator[str]:
    if found is None:
        yield f"the delta of {given['dimension']} that its pair says"
        return
    for column, value in given.items():
        if found[column] != value:
            yield (
                f"pair_deltas.{column} of {given['dimension']} is {found[column]!r}, but the pair "
                f"says {value!r}"
            )


def _finding(table: Table, row: RowMapping, fact: str) -> Finding:
    names = [column.name for column in table.primary_key.columns]
    return Finding(
        kind="contradictory",
        fact=fact,
        prompt_id=row["prompt_id"],
        round=row["round"],
        attempt=row.get("attempt"),
        rows=(", ".join(f"{name} {row[name]}" for name in names),),
    )
