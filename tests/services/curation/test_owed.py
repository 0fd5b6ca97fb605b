"""Owed events: each waits twice as long as the time before, and a fresh broker gets all of them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.curation.owed import OwedSchedule, republish_all
from tests.records import WHEEL, a_prompt, a_trace, seconds
from tests.services.fakes import FakeClock, add_asked, add_judged


@dataclass
class FakeProducer:
    """Keeps the batches that it was given; longer values it does not take."""

    max_bytes: int = 4_000_000
    batches: list[list[OutboundMessage]] = field(default_factory=list)

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        if any(len(message.value or b"") > self.max_bytes for message in messages):
            raise InvalidRecordError("too large")
        self.batches.append(list(messages))

    def close(self) -> None:
        """Nothing is open."""

    @property
    def published(self) -> list[Record]:
        return [
            decode(
                InboundMessage(
                    topic=sent.topic,
                    partition=0,
                    offset=0,
                    key=sent.key,
                    value=sent.value,
                    headers=sent.headers,
                ),
                wheel=WHEEL,
            )
            for batch in self.batches
            for sent in batch
        ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield store


def due_times(schedule: OwedSchedule, record: Record, times: range) -> list[int]:
    return [time for time in times if publish_due(schedule, [record], at=time)]


def publish_due(schedule: OwedSchedule, owed: list[Record], *, at: int) -> list[Record]:
    due = schedule.due(owed, at=seconds(at))
    schedule.published(due, at=seconds(at))
    return due


def test_each_wait_is_twice_the_one_before() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    assert due_times(schedule, a_prompt(), range(200)) == [0, 10, 30, 70, 150]


def test_late_tick_counts_the_wait_from_itself() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    assert due_times(schedule, a_prompt(), range(0, 100, 7)) == [0, 14, 35, 77]


def test_events_have_waits_of_their_own() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    prompt, trace = a_prompt(), a_trace()
    assert publish_due(schedule, [prompt], at=0) == [prompt]
    assert publish_due(schedule, [prompt, trace], at=5) == [trace]
    assert publish_due(schedule, [prompt, trace], at=10) == [prompt]
    assert publish_due(schedule, [prompt, trace], at=15) == [trace]
    assert publish_due(schedule, [prompt, trace], at=29) == []


def test_event_whose_publication_failed_stays_due_and_waits_no_longer_for_it() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    for time in range(0, 100, 5):
        assert schedule.due([a_prompt()], at=seconds(time)) == [a_prompt()]
    assert due_times(schedule, a_prompt(), range(100, 200)) == [100, 110, 130, 170]


def test_no_event_waits_longer_than_an_hour() -> None:
    schedule = OwedSchedule(first_wait_s=1_000)
    times = due_times(schedule, a_prompt(), range(0, 20_000, 100))
    assert times == [0, 1_000, 3_000, 6_600, 10_200, 13_800, 17_400]


def test_due_events_keep_the_order_in_which_they_are_owed() -> None:
    prompts: list[Record] = [a_prompt(f"{number}+1=") for number in range(5)]
    assert OwedSchedule(first_wait_s=10).due(prompts, at=seconds(0)) == prompts


def test_event_that_is_owed_no_longer_is_forgotten() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    publish_due(schedule, [a_prompt()], at=0)
    assert publish_due(schedule, [], at=1) == []
    assert due_times(schedule, a_prompt(), range(2, 40)) == [2, 12, 32]


def test_event_on_another_page_is_not_forgotten() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    old, young = a_prompt("old"), a_prompt("young")
    for at in (0, 5):
        due = [*schedule.due([old], at=seconds(at), is_last=False)]
        due += schedule.due([young], at=seconds(at))
        schedule.published(due, at=seconds(at))
        assert due == ([old, young] if at == 0 else [])


def test_same_event_twice_in_a_page_is_due_once() -> None:
    schedule = OwedSchedule(first_wait_s=10)
    assert schedule.due([a_prompt(), a_prompt()], at=seconds(0)) == [a_prompt()]


def test_rounds_of_a_prompt_are_events_of_their_own() -> None:
    rounds: list[Record] = [a_prompt(round=number) for number in range(2)]
    assert OwedSchedule(first_wait_s=10).due(rounds, at=seconds(0)) == rounds


def test_everything_owed_is_published_again_in_pages(store: Store) -> None:
    clock, producer = FakeClock(), FakeProducer()
    prompts = [a_prompt(f"{number}+1=", accepted_at=clock.at) for number in range(2_001)]
    store.add_prompts(prompts)
    assert republish_all(store, producer, clock, wheel=WHEEL) == 2_001
    assert [len(batch) for batch in producer.batches] == [1_000, 1_000, 1]
    assert sorted(producer.published, key=repr) == sorted(prompts, key=repr)


def test_each_kind_of_owed_event_goes_to_its_own_topic(store: Store) -> None:
    unasked = a_prompt("unasked")
    store.add_prompts([unasked])
    half = add_asked(store, a_prompt("half asked"))
    judged = add_judged(store, a_prompt("judged"))
    producer = FakeProducer()
    assert republish_all(store, producer, FakeClock(), wheel=WHEEL) == 3
    group = store.group(judged.key)
    assert group is not None
    assert sorted(producer.published, key=repr) == sorted(
        [unasked, half, group.judgements[0]], key=repr
    )
    [batch] = producer.batches
    assert {dict(message.headers)["ce_source"] for message in batch} == {
        f"/deltawheel/{WHEEL}/supervisor".encode()
    }


def test_nothing_is_published_where_nothing_is_owed(store: Store) -> None:
    producer = FakeProducer()
    assert republish_all(store, producer, FakeClock(), wheel=WHEEL) == 0
    assert producer.batches == []


def test_event_that_is_too_large_for_the_broker_is_passed_over_with_an_error(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock, producer = FakeClock(), FakeProducer(max_bytes=4_000)
    prompts = [a_prompt(f"{number}+1=", accepted_at=clock.at) for number in range(10)]
    store.add_prompts([*prompts, a_prompt("x" * 5_000, accepted_at=clock.at)])
    assert republish_all(store, producer, clock, wheel=WHEEL) == 10
    assert sorted(producer.published, key=repr) == sorted(prompts, key=repr)
    assert "is not published: too large" in caplog.text
