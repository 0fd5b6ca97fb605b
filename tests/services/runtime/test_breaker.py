"""Circuit breakers, played in any order of events."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.services.runtime.breaker import Breaker, BreakerRules, Breakers
from tests.records import T0

RULES = BreakerRules(num_failures=3, base_s=1.0, cap_s=8.0, forget_after_s=100.0)
ALMOST_1 = 0.999


def opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker("store", RULES)
    for _ in range(RULES.num_failures):
        breaker.failed(at_s, jitter=ALMOST_1)
    assert breaker.is_open
    return breaker


def fail(breakers: Breakers, dependency: str, at_s: float = 0.0, times: int = 3) -> None:
    for _ in range(times):
        breakers.failed(dependency, at_s, jitter=ALMOST_1, error=RetryLaterError("no"))


def test_enough_failures_in_a_row_open_it() -> None:
    breaker = Breaker("store", RULES)
    assert [breaker.failed(at, jitter=0) for at in (0, 1, 2)] == [False, False, True]
    assert not breaker.admits(2.0)


@given(st.lists(st.sampled_from("fs"), max_size=200))
def test_as_long_as_others_succeed_a_record_that_always_fails_opens_nothing(
    calls: list[str],
) -> None:
    breaker = Breaker("store", RULES)
    in_a_row = 0
    for call in calls:
        in_a_row = in_a_row + 1 if call == "f" and in_a_row < RULES.num_failures - 1 else 0
        if in_a_row:
            breaker.failed(0, jitter=0)
        else:
            breaker.succeeded()
        assert breaker.admits(0)


def test_one_probe_at_a_time_goes_through_an_open_one() -> None:
    breaker = opened()
    wait_s = breaker.wait_s(0)
    assert 0 < wait_s <= RULES.base_s
    assert not breaker.admits(wait_s / 2)
    assert breaker.admits(wait_s)
    assert not breaker.admits(wait_s)


def test_success_of_the_probe_closes_it_and_the_next_outage_begins_anew() -> None:
    breaker = opened()
    assert breaker.admits(1)
    assert breaker.succeeded()
    assert breaker.admits(1)
    assert not breaker.failed(2, jitter=0)


def test_pauses_between_probes_double_up_to_the_cap() -> None:
    breaker, at_s, pauses = opened(), 0.0, []
    for _ in range(6):
        at_s += breaker.wait_s(at_s)
        assert breaker.admits(at_s)
        breaker.failed(at_s, jitter=ALMOST_1)
        pauses.append(round(breaker.wait_s(at_s)))
    assert pauses == [2, 4, 8, 8, 8, 8]


def test_failures_of_calls_that_were_under_way_prolong_nothing() -> None:
    breaker = opened()
    wait_s = breaker.wait_s(0)
    for _ in range(100):
        breaker.failed(0, jitter=ALMOST_1)
    assert breaker.wait_s(0) == wait_s


def test_probe_of_which_nothing_is_heard_gives_way_to_another() -> None:
    breaker = opened()
    assert breaker.admits(1)
    assert not breaker.admits(1 + RULES.cap_s / 2)
    assert breaker.admits(1 + RULES.cap_s)


def test_probe_that_found_nothing_out_gives_way_at_once() -> None:
    breaker = opened()
    breaker.admits(1)
    breaker.release(1.5)
    assert breaker.admits(1.5)


def test_server_is_given_the_pause_it_asks_for_up_to_the_cap() -> None:
    breaker = Breaker("store", RULES)
    for _ in range(3):
        breaker.failed(0, jitter=0, at_least_s=5)
    assert breaker.wait_s(0) == 5
    breaker.admits(5)
    breaker.failed(5, jitter=0, at_least_s=86_400)
    assert breaker.wait_s(5) == RULES.cap_s


def test_error_that_reaches_many_records_of_one_batch_counts_once() -> None:
    breakers, error = Breakers(rules=RULES), RetryLaterError("one transaction failed")
    for _ in range(100):
        breakers.failed("store", 0, jitter=0, error=error)
    assert breakers.open() == frozenset()
    fail(breakers, "store", times=2)
    assert breakers.open() == {"store"}


def test_everything_waits_for_a_vital_dependency() -> None:
    breakers = Breakers(rules=RULES, vital={"store", "broker"})
    assert breakers.blocked_s(0) is None
    fail(breakers, "store")
    blocked_s = breakers.blocked_s(0)
    assert blocked_s is not None
    assert blocked_s > 0
    assert breakers.blocked_s(blocked_s) == 0
    breakers.succeeded("store", 1)
    assert breakers.blocked_s(1) is None


def test_all_of_a_pool_must_be_down_before_everything_waits() -> None:
    breakers = Breakers(rules=RULES, pool={"a", "b"})
    breakers.of("b").admits(0)
    fail(breakers, "a")
    assert breakers.blocked_s(0) is None
    fail(breakers, "b")
    assert breakers.blocked_s(0) is not None
    breakers.succeeded("b", 0)
    assert breakers.blocked_s(0) is None


def test_server_that_nobody_has_asked_for_long_or_ever_keeps_the_work_going() -> None:
    for idle in ("asked once", "never asked"):
        breakers = Breakers(rules=RULES, pool={"a", idle})
        breakers.of("asked once").succeeded()
        fail(breakers, "a", at_s=10 * RULES.forget_after_s)
        assert breakers.blocked_s(10 * RULES.forget_after_s) is None


def test_server_that_is_retired_keeps_nothing_going() -> None:
    breakers = Breakers(rules=RULES, pool={"a", "retired"})
    breakers.of("retired").succeeded()
    fail(breakers, "a")
    breakers.pool = {"a"}
    assert breakers.blocked_s(0) is not None


def test_dependency_that_is_none_of_ours_holds_nothing_up() -> None:
    breakers = Breakers(rules=RULES, vital={"store"}, pool={"a"})
    breakers.of("a").admits(0)
    fail(breakers, "registry")
    assert breakers.blocked_s(0) is None


def test_whoever_enters_waits_for_the_slowest_and_takes_no_probe_meanwhile() -> None:
    breakers, both = Breakers(rules=RULES), ("store", "broker")
    assert breakers.enter(both, 0)
    fail(breakers, "store", at_s=0)
    fail(breakers, "broker", at_s=5)
    assert not breakers.enter(both, 5)
    assert breakers.wait_s(both, 5) == breakers.of("broker").wait_s(5) > 0
    assert breakers.of("store").wait_s(5) == 0
    assert breakers.enter(both, 6)
    assert not breakers.enter(both, 6)
    breakers.leave(both, 6)
    assert breakers.enter(both, 6)


def test_downtime_lasts_from_the_first_failure_to_the_first_success() -> None:
    breakers = Breakers(rules=RULES)
    for at_s in (10.0, 20.0, 30.0):
        fail(breakers, "store", at_s, times=1)
    [lasting] = breakers.downtimes()
    assert lasting.as_outage(at=T0, at_s=40).ended_at == T0
    breakers.succeeded("store", 50)
    [ended] = breakers.downtimes()
    row = ended.as_outage(at=T0 + timedelta(seconds=20), at_s=60)
    assert row.dependency == "store"
    assert row.began_at == T0 - timedelta(seconds=30)
    assert row.ended_at == T0 + timedelta(seconds=10)
    breakers.written([ended])
    assert breakers.downtimes() == []


def test_calendar_that_is_put_back_makes_no_second_row() -> None:
    breakers = Breakers(rules=RULES)
    fail(breakers, "store")
    [downtime] = breakers.downtimes()
    first = downtime.as_outage(at=T0, at_s=1)
    second = downtime.as_outage(at=T0 - timedelta(days=1), at_s=2)
    assert first.began_at == second.began_at == second.ended_at


def test_downtime_of_what_nobody_needs_ends_when_it_was_last_asked() -> None:
    breakers = Breakers(rules=RULES)
    fail(breakers, "gone", at_s=1)
    breakers.forget_idle(50)
    assert breakers.open() == {"gone"}
    breakers.forget_idle(101)
    assert breakers.open() == frozenset()
    [downtime] = breakers.downtimes()
    assert downtime.ended_s == 1


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Calls that begin, succeed, fail or vanish while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.breakers = Breakers(rules=RULES, vital={"store"})
        self.at_s = 0.0
        self.failed_in_a_row = 0

    @property
    def breaker(self) -> Breaker:
        return self.breakers.of("store")

    @rule(pause_s=st.floats(0, 20))
    def pass_time(self, pause_s: float) -> None:
        self.at_s += pause_s

    @rule()
    def ask(self) -> None:
        was_open, wait_s = self.breaker.is_open, self.breaker.wait_s(self.at_s)
        assert self.breaker.admits(self.at_s) == (not was_open or wait_s == 0)
        if was_open:
            assert not self.breaker.admits(self.at_s), "two probes at once"

    @rule()
    def succeed(self) -> None:
        self.breakers.succeeded("store", self.at_s)
        self.failed_in_a_row = 0

    @rule(jitter=st.floats(0, ALMOST_1))
    def fail(self, jitter: float) -> None:
        error = RetryLaterError("no")
        self.breakers.failed("store", self.at_s, jitter=jitter, error=error)
        self.failed_in_a_row += 1

    @rule()
    def give_up(self) -> None:
        self.breakers.leave(("store",), self.at_s)

    @invariant()
    def it_is_open_exactly_after_enough_failures_in_a_row(self) -> None:
        assert self.breaker.is_open == (self.failed_in_a_row >= RULES.num_failures)

    @invariant()
    def nobody_ever_waits_longer_than_the_cap(self) -> None:
        assert self.breaker.wait_s(self.at_s) <= RULES.cap_s + 1e-9
        blocked_s = self.breakers.blocked_s(self.at_s)
        assert (blocked_s is not None) == self.breaker.is_open

    @invariant()
    def every_downtime_is_told_and_they_are_apart(self) -> None:
        spans = [(each.began_s, each.ended_s) for each in self.breakers.downtimes()]
        for (_, ended_s), (began_s, _) in pairwise(spans):
            assert ended_s is not None
            assert ended_s <= began_s


test_any_order_of_calls_keeps_the_breaker_right = AnyOrderOfCalls.TestCase
