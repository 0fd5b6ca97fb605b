"""Every service on topics full of garbage: each message is done or a dead letter, none stops it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode, encode
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import (
    CurationSettings,
    MonitoringSettings,
    RuntimeSettings,
    Settings,
)
from deltawheel.contracts.store import Store
from deltawheel.contracts.topics import Topic
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.memory_bus import MemoryBus
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.curation.handler import Curation
from deltawheel.services.generation.handler import Generation
from deltawheel.services.judging.handler import Judging
from deltawheel.services.monitoring.handler import Monitoring
from deltawheel.services.runtime.dead_letters import as_message, make_letter
from deltawheel.services.runtime.handler import Handler
from deltawheel.services.runtime.loop import Loop
from tests.components import require
from tests.fuzz import as_polled, fuzzed, fuzzed_messages
from tests.postgres import PostgresServer, postgres_server
from tests.records import (
    T0,
    WHEEL,
    a_generator,
    a_pool_event,
    a_prompt,
    a_rubric,
    a_trace,
    an_assignment,
)
from tests.services.fakes import (
    PANEL,
    FakeChecks,
    FakeFailpoints,
    FakeJudge,
    FakeModels,
    add_asked,
    add_judged,
    held,
)

SETTINGS = Settings(wheel=WHEEL, runtime=RuntimeSettings(poll_timeout_s=0.01, drain_timeout_s=5))
MANY = 2_000


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    require("postgres")
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    with closing(SqlStore(url, wheel=WHEEL)) as store:
        yield store


# The services, and for each a valid record behind the garbage


def a_generation(store: Store) -> Handler:
    store.add_pool_events([a_pool_event(a_generator(name)) for name in ("strong", "weak")])
    return Generation(
        settings=SETTINGS,
        store=store,
        models=FakeModels(),
        judge_revision=PANEL,
        clock=SystemClock(),
        telemetry=PrometheusTelemetry(),
        failpoints=FakeFailpoints(),
    )


def a_judging(store: Store) -> Handler:
    return Judging(
        store=store,
        judge=FakeJudge(),
        rubric=a_rubric(),
        clock=SystemClock(),
        telemetry=PrometheusTelemetry(),
        failpoints=FakeFailpoints(),
        concurrency=64,
    )


def a_curation(store: Store) -> Handler:
    return Curation(
        settings=CurationSettings(
            batch_max_pairs=32, batch_max_wait_s=0.01, republish_after_s=10_000
        ),
        store=store,
        checks=FakeChecks(),
        rubric=a_rubric(),
        clock=SystemClock(),
        random=SystemRandom(),
        telemetry=PrometheusTelemetry(),
        failpoints=FakeFailpoints(),
    )


def a_monitoring(store: Store) -> Handler:
    return Monitoring(
        settings=MonitoringSettings(),
        store=store,
        clock=SystemClock(),
        telemetry=PrometheusTelemetry(),
        failpoints=FakeFailpoints(),
    )


def prompt_event(store: Store, prompt: Prompt) -> Record:
    store.add_prompts([prompt])
    return prompt


def trace_event(store: Store, prompt: Prompt) -> Record:
    add_asked(store, prompt)
    return store.add_traces([a_trace(an_assignment(prompt))])[0]


def judgement_event(store: Store, prompt: Prompt) -> Record:
    return held(store, add_judged(store, prompt)).judgements[0]


def is_asked(store: Store, prompt: Prompt) -> bool:
    return len(held(store, prompt).traces) == 2


def is_judged(store: Store, prompt: Prompt) -> bool:
    return len(held(store, prompt).judgements) == 1


def is_closed(store: Store, prompt: Prompt) -> bool:
    return held(store, prompt).closing is not None


def is_stored(store: Store, prompt: Prompt) -> bool:
    return bool(held(store, prompt))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A service, a valid record that waits behind the garbage, and what must come of it."""

    service: Callable[[Store], Handler]
    event: Callable[[Store, Prompt], Record]
    is_done: Callable[[Store, Prompt], bool]


CASES: Mapping[str, Case] = {
    "generation": Case(service=a_generation, event=prompt_event, is_done=is_asked),
    "judging": Case(service=a_judging, event=trace_event, is_done=is_judged),
    "curation": Case(service=a_curation, event=judgement_event, is_done=is_closed),
    "monitoring": Case(service=a_monitoring, event=prompt_event, is_done=is_stored),
}
every_service = pytest.mark.parametrize("name", CASES)


@dataclass
class Stage:
    """A service between a bus in memory and a real store."""

    handler: Handler
    store: Store
    bus: MemoryBus = field(default_factory=lambda: MemoryBus(wheel=WHEEL, partitions=1))

    async def run(self, messages: Sequence[OutboundMessage]) -> None:
        """Send the messages, and run the service until it has committed the last of them."""
        self.bus.producer().publish(messages)
        loop = Loop(
            self.handler,
            consumer=self.bus.consumer(group="g", topics=[it.of(WHEEL) for it in self.topics]),
            producer=self.bus.producer(),
            ledger=self.store,
            clock=SystemClock(),
            random=SystemRandom(0),
            telemetry=PrometheusTelemetry(),
            settings=SETTINGS,
        )
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(120):
            while self.num_committed < len(messages) and not running.done():
                await asyncio.sleep(0.005)
        loop.stop()
        await running
        assert self.num_committed == len(messages)

    @property
    def topics(self) -> tuple[Topic, ...]:
        return self.handler.topics

    @property
    def num_committed(self) -> int:
        return sum(self.bus.committed("g").values())

    def expected(self, messages: Sequence[OutboundMessage]) -> dict[str, list[InboundMessage]]:
        """Return which letters these messages must become: monitoring refuses no readable one."""
        letters: dict[str, list[InboundMessage]] = {}
        for message in map(as_polled, messages):
            try:
                decode(message, wheel=WHEEL)
            except InvalidRecordError:
                pass
            else:
                if self.handler.name == "monitoring":
                    continue
            letters.setdefault(self.letter(message).letter_id, []).append(message)
        return letters

    def letter(self, message: InboundMessage) -> DeadLetter:
        error = InvalidRecordError("")
        return make_letter(message, None, error, service=self.handler.name, at=T0)


def sendable(messages: Sequence[OutboundMessage]) -> list[OutboundMessage]:
    """Leave out what the bus in memory takes from nobody."""
    return [it for it in messages if it.key is not None or it.value is not None]


async def check(stage: Stage, case: Case, prompt: Prompt, garbage: list[OutboundMessage]) -> None:
    """Send garbage with one valid record behind it, and ask what has become of each."""
    event = encode(case.event(stage.store, prompt), wheel=WHEEL, service="test")
    await stage.run([*garbage, event])
    assert case.is_done(stage.store, prompt)
    letters = {letter.letter_id: letter for letter in stage.store.dead_letters(100_000)}
    expected = stage.expected(garbage)
    assert expected.keys() <= letters.keys()
    for letter_id, messages in expected.items():
        letter = letters[letter_id]
        assert letter.reason
        assert (letter.key, letter.value) == (messages[0].key, messages[0].value)
        assert stage.letter(messages[0]).topic == letter.topic
    buried = stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert len(buried) == sum(map(len, expected.values()))
    assert {message.value for message in buried} == {
        message.value for messages in expected.values() for message in messages
    }


@every_service
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_each_spoilt_message_is_done_or_a_dead_letter_and_a_valid_one_gets_through(
    name: str, store: SqlStore, data: st.DataObject
) -> None:
    case = CASES[name]
    stage = Stage(case.service(store), store)
    spoilt = st.one_of(*(fuzzed(topic, wheel=WHEEL) for topic in stage.topics))
    garbage = sendable(data.draw(st.lists(spoilt, max_size=12)))
    prompt = a_prompt(data.draw(st.integers(0, 10**12).map(str)))
    asyncio.run(check(stage, case, prompt, garbage))


@every_service
@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_thousands_of_spoilt_messages_stop_no_service(name: str, store: SqlStore) -> None:
    case = CASES[name]
    stage = Stage(case.service(store), store)
    garbage = [
        message
        for topic in stage.topics
        for message in fuzzed_messages(topic, MANY // len(stage.topics), wheel=WHEEL, seed=5)
    ]
    await check(stage, case, a_prompt(f"behind all of them, for {name}"), sendable(garbage))


REASONS = ("NUL \0 inside", "half of a pair \ud800", "\udfff\0", "\x1b[31mred", "")


@pytest.mark.parametrize("reason", REASONS, ids=ascii)
def test_reason_that_is_no_text_everywhere_is_kept_as_one_that_is(
    reason: str, store: SqlStore
) -> None:
    message = as_polled(OutboundMessage(topic=Topic.TRACES.of(WHEEL), key=b"\0", value=b"\xed\xa0"))
    error = InvalidRecordError(reason)
    letter = make_letter(message, None, error, service="judging", at=T0)
    store.bury([Burial(letter)])
    [kept] = store.dead_letters(10)
    assert (kept.key, kept.value) == (message.key, message.value)
    assert kept.reason == reason.replace("\ud800", r"\ud800").replace("\udfff", r"\udfff")
    assert as_message(letter, wheel=WHEEL, max_bytes=100_000).value == message.value
