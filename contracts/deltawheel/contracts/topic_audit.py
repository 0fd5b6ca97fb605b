"""What topics can say in an audit: how far they are read, and whether they agree with the rows.

Topics prove nothing about outcomes, for the store is what counts; an event that names a row which
is not there, or says something else than it, is a fault all the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import InboundMessage, decode, event_id, key_of
from deltawheel.contracts.evidence import Finding
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record

__all__ = [
    "DeepAudit",
    "GroupOffset",
    "HeldEvents",
    "StoredPair",
    "TopicReads",
    "batches",
    "compare_events",
    "name_unsent",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffset:
    """How far a consumer group has read a topic, all partitions together.

    `committed` counts from the first record that the topic still has; `end` is its length by the
    same count, so that the difference is what is left to read. `positions` are the committed
    offsets as they are, by partition.
    """

    topic: str
    group: str
    committed: int
    end: int
    positions: Mapping[int, int]

    @property
    def lag(self) -> int:
        """How many records the group has not finished."""
        return max(0, self.end - self.committed)


class TopicReads(Protocol):
    """Reads topics beside all groups: it joins none, and commits nothing."""

    def offsets(self, groups: Mapping[str, Sequence[str]]) -> list[GroupOffset]:
        """Return how far each group has read each of its topics.

        Raises:
            RetryLaterError: the broker cannot be reached.
        """
        ...

    def messages(self, topics: Sequence[str]) -> Iterator[InboundMessage]:
        """Yield every record that the topics hold at the moment, the oldest of each first.

        Raises:
            RetryLaterError: the broker cannot be reached.
        """
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class StoredPair(NamedTuple):
    """A pair of the store, and whose it is."""

    pair_id: str
    key: PromptKey


class HeldEvents(Protocol):
    """The rows behind events."""

    def held_events(self, records: Sequence[Record]) -> Mapping[str, Record]:
        """Return, by event id, what the store would publish for each of these; absent rows are."""
        ...

    def dead_values(self, values: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of these payloads that a dead letter holds."""
        ...

    def stored_pairs(self, *, since: datetime, before: datetime) -> Iterator[StoredPair]:
        """Yield the pairs that were made after one moment and before another."""
        ...


class _Place(NamedTuple):
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(slots=True, kw_only=True)
class DeepAudit:
    """What was read of the topics."""

    offsets: Sequence[GroupOffset] = ()
    """How far the groups had read before the first record was."""
    messages: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    unread: int = 0
    """How many records nobody could bury yet, for a group of theirs has not come to them."""
    findings: list[Finding] = field(default_factory=list)
    _pairs: set[int] = field(default_factory=set)
    _first_at: dict[tuple[str, int], datetime] = field(default_factory=dict)

    @property
    def pairs_since(self) -> datetime | None:
        """From when on the topic of pairs is complete; None while it holds none.

        Retention and the loss of an embedded broker take its beginning away, and from each
        partition another one.
        """
        return max(self._first_at.values(), default=None)

    def note_pair(self, message: InboundMessage, pair: PreferencePair) -> None:
        """Remember, in a few bytes, that a pair had its event."""
        self._pairs.add(_short(pair.pair_id))
        place = message.topic, message.partition
        self._first_at[place] = min(self._first_at.get(place, pair.paired_at), pair.paired_at)

    def is_unread(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a group that reads the topic had not finished this record."""
        return any(
            offset >= group.positions[partition]
            for group in self.offsets
            if group.topic == topic and partition in group.positions
        )

    def has_pair(self, pair_id: str) -> bool:
        """Tell whether this pair had its event."""
        return _short(pair_id) in self._pairs


def _short(pair_id: str) -> int:
    return hash(pair_id)


def compare_events(
    batch: Sequence[InboundMessage], held: HeldEvents, *, wheel: str, audit: DeepAudit
) -> None:
    """Compare one batch of messages with the rows that they speak of."""
    records: list[tuple[_Place, Record]] = []
    refused: list[tuple[_Place, bytes | None, str]] = []
    values: dict[_Place, bytes | None] = {}
    for message in batch:
        audit.messages[message.topic] += 1
        place = _Place(message.topic, message.partition, message.offset)
        try:
            record = decode(message, wheel=wheel)
        except InvalidRecordError as error:
            refused.append((place, message.value, str(error)))
            continue
        values[place] = message.value
        records.append((place, record))
        if isinstance(record, PreferencePair):
            audit.note_pair(message, record)
    rows = held.held_events([record for _, record in records])
    for place, record in records:
        row = rows.get(event_id(record))
        if row is None:
            refused.append((place, values[place], _nothing_behind(record)))
        elif row != record:
            audit.findings.append(
                _finding(place, record, f"{place} says something else than the stored {_a(record)}")
            )
    _bury(refused, held, audit)


def name_unsent(pairs: Iterable[StoredPair], audit: DeepAudit) -> None:
    """Name stored pairs whose event their topic should hold, and does not."""
    for pair in pairs:
        if not audit.has_pair(pair.pair_id):
            audit.findings.append(
                Finding(
                    kind="missing",
                    fact="a stored pair's event, though its topic holds what came before",
                    prompt_id=pair.key.prompt_id,
                    round=pair.key.round,
                    rows=(pair.pair_id,),
                )
            )


def _bury(
    refused: Sequence[tuple[_Place, bytes | None, str]], held: HeldEvents, audit: DeepAudit
) -> None:
    dead = held.dead_values([value for _, value, _ in refused if value is not None])
    for place, value, reason in refused:
        if value is None or value in dead:
            audit.dead += 1
        elif audit.is_unread(*place):
            audit.unread += 1
        else:
            audit.findings.append(
                Finding(kind="contradictory", fact=f"{place}: {reason}", rows=(str(place),))
            )


def _finding(place: _Place, record: Record, fact: str) -> Finding:
    key = key_of(record)
    return Finding(
        kind="contradictory",
        fact=fact,
        prompt_id=key.prompt_id if key else None,
        round=key.round if key else None,
        rows=(str(place),),
    )


def _a(record: Record) -> str:
    return type(record).__name__


def _nothing_behind(record: Record) -> str:
    return f"a {_a(record)} that the store does not hold ({event_id(record)})"


def batches(messages: Iterable[InboundMessage], size: int) -> Iterator[list[InboundMessage]]:
    """Cut a stream of messages into lists of at most `size`."""
    batch: list[InboundMessage] = []
    for message in messages:
        batch.append(message)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
