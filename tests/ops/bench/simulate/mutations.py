"""Wheels that break the guarantee, each in one way: what the simulation must notice."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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


class _Wrapper:
    """Does as the port behind it does, but for what a mutant does otherwise."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LateStore(_Wrapper):
    """Says that it has stored, and stores a little later: events come before their effects."""

    def __init__(self, inner: Any, process: Process, effects: frozenset[str] = _EFFECTS) -> None:
        super().__init__(inner, process)
        self._effects = effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._effects:
            return method

        def write(records: Sequence[Any]) -> Sequence[Any]:
            asyncio.get_running_loop().call_later(LATE_S, _quietly, method, records)
            return _pair_events(records) if name == "close_groups" else records

        return write


def _pair_events(ends: Sequence[GroupEnd]) -> list[PreferencePair | QuarantinedPair]:
    events: list[PreferencePair | QuarantinedPair] = []
    for end in ends:
        events += [*end.pairs, *end.quarantined]
    return events


class UnburyingStore(_Wrapper):
    """Says that it has buried, and has not; monitoring's alone does."""

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        is_honest = self._process.name.startswith("monitoring")
        return list(self._inner.bury(burials)) if is_honest else [[] for _ in burials]


class LetterlessProducer(_Wrapper):
    """Says that it has published dead letters, and has not."""

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        kept = [it for it in messages if not it.topic.endswith(Topic.DEAD_LETTERS.value)]
        if kept:
            self._inner.publish(kept)


class LateProducer(_Wrapper):
    """Says that it has published, and publishes a little later: offsets come before events."""

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        asyncio.get_running_loop().call_later(LATE_S, _quietly, self._inner.publish, messages)


class EagerConsumer(_Wrapper):
    """Commits what it takes as it takes it: offsets come before effects and events."""

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        messages: Sequence[InboundMessage] = self._inner.poll(timeout_s)
        ends: dict[TopicPartition, int] = {}
        for message in messages:
            at = TopicPartition(message.topic, message.partition)
            ends[at] = max(ends.get(at, 0), message.offset + 1)
        if ends:
            self._inner.commit(ends)
        return messages

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """That is done already."""


class LateConsumer(_Wrapper):
    """Commits a little after it should: alone, that only makes records come again."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2 * LATE_S, _quietly, self._inner.commit, offsets)


class ForgetfulConsumer(_Wrapper):
    """Says that it has committed, and never does."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing is committed."""


_StoreWrapper = Callable[[Store, Process], Store]
_ProducerWrapper = Callable[[Producer, Process], Producer]
_ConsumerWrapper = Callable[[Consumer, Process], Consumer]

late_store = cast(_StoreWrapper, LateStore)
late_closings = cast(_StoreWrapper, partial(LateStore, effects=frozenset({"close_groups"})))
late_acceptance = cast(_StoreWrapper, partial(LateStore, effects=frozenset({"add_prompts"})))
unburying_store = cast(_StoreWrapper, UnburyingStore)
late_producer = cast(_ProducerWrapper, LateProducer)
letterless_producer = cast(_ProducerWrapper, LetterlessProducer)
eager_consumer = cast(_ConsumerWrapper, EagerConsumer)
late_consumer = cast(_ConsumerWrapper, LateConsumer)
forgetful_consumer = cast(_ConsumerWrapper, ForgetfulConsumer)


def _quietly(act: Callable[..., object], *args: object) -> None:
    try:
        act(*args)
    except (Exception, KilledError):
        return
