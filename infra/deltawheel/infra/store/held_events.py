"""The rows behind events: what the store would publish."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from deltawheel.contracts.events import event_id
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.topic_audit import StoredPair
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import Part, chunks
from deltawheel.infra.store.tables import (
    DEAD_LETTERS,
    JUDGEMENTS,
    PAIRS,
    PROMPT_FAILURES,
    PROMPTS,
    QUARANTINE,
    SLOT_ENDS,
    TRACES,
)

__all__ = ["SqlHeldEvents"]

_BEHIND: Mapping[type[Record], tuple[Table, str]] = {
    Prompt: (PROMPTS, "prompt_id"),
    Trace: (TRACES, "trace_id"),
    Judgement: (JUDGEMENTS, "trace_id"),
    SlotFailed: (SLOT_ENDS, "prompt_id"),
    PromptFailed: (PROMPT_FAILURES, "prompt_id"),
    PreferencePair: (PAIRS, "pair_id"),
    QuarantinedPair: (QUARANTINE, "pair_id"),
}
"""Where the record of each class lies, and by which id its rows are found."""


_MAX_BYTES_AT_ONCE = 8_000_000
"""Of values in one statement, each of which may be as large as a message."""


class SqlHeldEvents(Part):
    """The `HeldEvents` port."""

    def held_events(self, records: Sequence[Record]) -> dict[str, Record]:
        """Return, by event id, what the store would publish for each of these."""
        by_class: defaultdict[type[Record], set[str]] = defaultdict(set)
        for record in records:
            if type(record) in _BEHIND and is_key(found := _id_of(record)):
                by_class[type(record)].add(found)
        with self._database.reading() as connection:
            return {
                event_id(record): record
                for kind, ids in by_class.items()
                for record in self._held(connection, kind, sorted(ids))
            }

    def _held(
        self, connection: Connection, kind: type[Record], ids: Sequence[str]
    ) -> Iterable[Record]:
        table, name = _BEHIND[kind]
        for part in chunks(ids):
            those = select(table.c.payload).where(
                table.c[name].in_(part), table.c.wheel == self._wheel, table.c.payload.is_not(None)
            )
            for payload in connection.scalars(those):
                yield kind.model_validate_json(payload)

    def dead_values(self, values: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of these payloads that a dead letter holds."""
        value = DEAD_LETTERS.c.value
        with self._database.reading(may_take_long=True) as connection:
            return frozenset(
                bytes(held)
                for part in _chunks_of_bytes(sorted(set(values)))
                for held in connection.scalars(
                    select(value).where(DEAD_LETTERS.c.wheel == self._wheel, value.in_(part))
                )
            )

    def stored_pairs(self, *, since: datetime, before: datetime) -> Iterator[StoredPair]:
        """Yield the pairs that were made after one moment and before another."""
        pair = PAIRS.c
        those = select(pair.pair_id, pair.prompt_id, pair.round).where(
            pair.wheel == self._wheel, pair.paired_at > since, pair.paired_at < before
        )
        with self._database.reading() as connection:
            streaming = connection.execution_options(yield_per=5_000)
            for pair_id, prompt_id, round_ in streaming.execute(those):
                yield StoredPair(pair_id, PromptKey(prompt_id, round_))


def _chunks_of_bytes(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut into pieces that fit one statement, by their number and by their size.

    A value larger than that is a piece by itself.
    """
    for part in chunks(values):
        start, num_bytes = 0, 0
        for at, value in enumerate(part):
            if at > start and num_bytes + len(value) > _MAX_BYTES_AT_ONCE:
                yield part[start:at]
                start, num_bytes = at, 0
            num_bytes += len(value)
        yield part[start:]


def _id_of(record: Any) -> str:  # noqa: ANN401
    if isinstance(record, QuarantinedPair):
        return record.pair.pair_id
    return str(getattr(record, _BEHIND[type(record)][1]))
