"""Adoption over a real store: the promotion is emitted until generation has taken it in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode
from deltawheel.contracts.generator import PoolEventKind
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.store import Store
from deltawheel.contracts.topics import Topic
from deltawheel.services.training.adoption import adopt
from tests.records import WHEEL, a_cycle, a_pool_event, a_promotion
from tests.services.training.benches import FakeProducer, PassingClock

TEN_MINUTES_S = 600


def decoded(message: OutboundMessage) -> object:
    arrived = InboundMessage(
        topic=message.topic,
        partition=0,
        offset=0,
        key=message.key,
        value=message.value,
        headers=message.headers,
    )
    return decode(arrived, wheel=WHEEL)


@dataclass
class Adoption:
    """One cycle's adoption, with what stands around it."""

    store: Store
    clock: PassingClock = field(default_factory=PassingClock)
    producer: FakeProducer = field(default_factory=FakeProducer)
    keep: Callable[[], None] = lambda: None

    def run(self) -> Mapping[str, Any]:
        return adopt(
            a_cycle().cycle_id,
            store=self.store,
            producer=self.producer,
            clock=self.clock,
            wheel=WHEEL,
            keep=self.keep,
        )

    def take_in(self, promotion: Promotion) -> None:
        """Do what generation does with the event."""
        event = a_pool_event(
            promotion.generator, kind=PoolEventKind.PROMOTED, cause=promotion.promotion_id
        )
        self.store.add_pool_events([event])

    def take_in_after(self, past_s: float) -> None:
        def look() -> None:
            if self.clock.past_s >= past_s:
                self.take_in(a_promotion())

        self.clock.at_wait = look


@pytest.fixture
def adoption(store: Store) -> Adoption:
    """Return the adoption of a cycle whose promotion is decided."""
    store.add_promotion(a_promotion())
    return Adoption(store)


def test_promotion_is_emitted_and_its_generator_named(adoption: Adoption) -> None:
    adoption.take_in_after(0.1)
    assert adoption.run() == {"generator": "champion-1", "num_events": 1}
    [message] = adoption.producer.published
    assert message.topic == Topic.PROMOTIONS.of(WHEEL)
    assert decoded(message) == a_promotion()


def test_promotion_is_emitted_again_until_the_pool_has_it_at_least_once_a_minute(
    adoption: Adoption,
) -> None:
    sent_at: list[int] = []

    def look() -> None:
        if len(adoption.producer.published) > len(sent_at):
            sent_at.append(int(adoption.clock.past_s) - 1)
        if adoption.clock.past_s > 200:
            adoption.take_in(a_promotion())

    adoption.clock = PassingClock(at_wait=look, lateness_s=0.9)
    assert adoption.run()["num_events"] == 8
    assert sent_at == [0, 2, 6, 14, 30, 62, 122, 182]
    assert len({message.value for message in adoption.producer.published}) == 1


def test_promotion_that_the_pool_has_already_is_not_emitted(adoption: Adoption) -> None:
    adoption.take_in(a_promotion())
    assert adoption.run() == {"generator": "champion-1", "num_events": 0}
    assert adoption.producer.published == []


def test_another_promotion_in_the_pool_is_not_taken_for_this_one(adoption: Adoption) -> None:
    adoption.take_in(a_promotion(a_cycle("other"), version="0"))
    adoption.take_in_after(1)
    assert adoption.run()["num_events"] == 1


def test_promotion_is_emitted_again_when_the_broker_was_down(
    adoption: Adoption, caplog: pytest.LogCaptureFixture
) -> None:
    adoption.producer.num_failures = 2
    adoption.take_in_after(10)
    assert adoption.run()["num_events"] == 1
    assert adoption.producer.num_failures == 0
    assert "the promotion is not published yet: the broker does not answer" in caplog.text


def test_lease_is_kept_several_times_a_second(adoption: Adoption) -> None:
    kept_at: list[float] = []
    adoption.keep = lambda: kept_at.append(adoption.clock.past_s)
    adoption.take_in_after(3)
    adoption.run()
    gaps = [later - earlier for earlier, later in pairwise(kept_at)]
    assert len(kept_at) >= 9
    assert max(gaps) < 0.5


def test_lease_that_is_lost_ends_the_adoption(adoption: Adoption) -> None:
    def keep() -> None:
        raise RetryLaterError("the lease was taken over")

    adoption.keep = keep
    with pytest.raises(RetryLaterError, match="taken over"):
        adoption.run()
    assert adoption.producer.published == []


def test_generation_that_never_takes_it_in_is_given_ten_minutes(adoption: Adoption) -> None:
    adoption.clock.lateness_s = 0.9
    with pytest.raises(RetryLaterError, match="generation has not taken the promoted model"):
        adoption.run()
    assert adoption.clock.past_s == pytest.approx(TEN_MINUTES_S, abs=1.5)


def test_cycle_without_a_decision_row_cannot_be_adopted(store: Store) -> None:
    store.add_promotion(a_promotion(a_cycle("other")))
    with pytest.raises(CycleError, match="no decision row"):
        Adoption(store).run()
