"""Wheels that break the guarantee, each in one way: what the simulation must notice."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import event, text

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.ports import Consumer, Producer, TopicPartition
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.contracts.topics import Topic
from deltawheel.infra.simulated.store import SimulatedStore
from deltawheel.ops.bench.simulate.process import KilledError, Process

LATE_S = 2.0
"""How long after the right moment a mutant does what it should have done before."""

_DO_NOTHING = re.compile(r"^INSERT INTO (.*) ON CONFLICT DO NOTHING", re.DOTALL)
_EFFECTS = frozenset({"add_assignments", "add_traces", "add_judgements", "add_slot_failures"})


class LastWriterWins(SimulatedStore):
    """Lets a zombie through: what it writes replaces what is there."""

    def __init__(self, *, wheel: str) -> None:
        super().__init__(wheel=wheel)
        event.listen(self._database._engine, "before_cursor_execute", self._replace, retval=True)

    @staticmethod
    def _replace(_c: object, _cursor: object, sql: str, parameters: Any, *_: object) -> Any:
        return _DO_NOTHING.sub(r"INSERT OR REPLACE INTO \1", sql), parameters


class KeylessStore(SimulatedStore):
    """A store in which tables have lost their primary keys, and with them what refers to these."""

    def __init__(self, *tables: str, wheel: str) -> None:
        super().__init__(wheel=wheel)
        self._database._raw.execute("PRAGMA foreign_keys=OFF")
        with self._database.writing() as connection:
            for table in tables:
                connection.execute(text(f"CREATE TABLE keyless AS SELECT * FROM {table}"))
                connection.execute(text(f"DROP TABLE {table}"))
                connection.execute(text(f"ALTER TABLE keyless RENAME TO {table}"))
        self._database.keep()


class LateStore:
    """Says that it has stored, and stores a little later: events come before their effects."""

    def __init__(self, store: Store, process: Process, effects: frozenset[str] = _EFFECTS) -> None:
        self._store = store
        self._effects = effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in self._effects:
            return method

        def write(records: Sequence[object]) -> Sequence[object]:
            asyncio.get_running_loop().call_later(LATE_S, _quietly, method, records)
            return records

        return write


class LateClosings(LateStore):
    """Says that it has closed groups and stored their pairs, and does it a little later."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != "close_groups":
            return method

        def write(ends: Sequence[GroupEnd]) -> list[PreferencePair | QuarantinedPair]:
            asyncio.get_running_loop().call_later(LATE_S, _quietly, method, ends)
            pairs: list[PreferencePair | QuarantinedPair] = []
            for end in ends:
                pairs += [*end.pairs, *end.quarantined]
            return pairs

        return write


class UnburyingStore:
    """Says that it has buried, and has not; monitoring's alone does."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._is_honest = process.name.startswith("monitoring")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        return self._store.bury(burials) if self._is_honest else [[] for _ in burials]


class LetterlessProducer:
    """Says that it has published dead letters, and has not."""

    def __init__(self, producer: Producer, process: Process) -> None:
        self._producer = producer

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        kept = [it for it in messages if not it.topic.endswith(Topic.DEAD_LETTERS.value)]
        if kept:
            self._producer.publish(kept)

    def close(self) -> None:
        self._producer.close()


class LateProducer:
    """Says that it has published, and publishes a little later: offsets come before events."""

    def __init__(self, producer: Producer, process: Process) -> None:
        self._producer = producer

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        asyncio.get_running_loop().call_later(LATE_S, _quietly, self._producer.publish, messages)

    def close(self) -> None:
        self._producer.close()


class EagerConsumer:
    """Commits what it takes as it takes it: offsets come before effects and events."""

    def __init__(self, consumer: Consumer, process: Process) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        messages = self._consumer.poll(timeout_s)
        ends: dict[TopicPartition, int] = {}
        for message in messages:
            at = TopicPartition(message.topic, message.partition)
            ends[at] = max(ends.get(at, 0), message.offset + 1)
        if ends:
            self._consumer.commit(ends)
        return messages

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """That is done already."""


class LateConsumer:
    """Commits a little after it should: alone, that only makes records come again."""

    def __init__(self, consumer: Consumer, process: Process) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2 * LATE_S, _quietly, self._consumer.commit, offsets)


class ForgetfulConsumer:
    """Says that it has committed, and never does."""

    def __init__(self, consumer: Consumer, process: Process) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing is committed."""


def late_closings(store: Store, process: Process) -> Store:
    return cast(Store, LateClosings(store, process))


def late_acceptance(store: Store, process: Process) -> Store:
    return cast(Store, LateStore(store, process, frozenset({"add_prompts"})))


def unburying_store(store: Store, process: Process) -> Store:
    return cast(Store, UnburyingStore(store, process))


def forgetful_consumer(consumer: Consumer, process: Process) -> Consumer:
    return cast(Consumer, ForgetfulConsumer(consumer, process))


def late_store(store: Store, process: Process) -> Store:
    return cast(Store, LateStore(store, process))


def eager_consumer(consumer: Consumer, process: Process) -> Consumer:
    return cast(Consumer, EagerConsumer(consumer, process))


def late_consumer(consumer: Consumer, process: Process) -> Consumer:
    return cast(Consumer, LateConsumer(consumer, process))


def _quietly(act: Callable[..., object], *args: object) -> None:
    try:
        act(*args)
    except (Exception, KilledError):
        return
