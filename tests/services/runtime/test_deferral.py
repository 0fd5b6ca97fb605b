"""When a record is deferred and tried again, played without clock and randomness."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.interruptions import Deferral
from deltawheel.contracts.settings import RuntimeSettings
from deltawheel.services.runtime.deferral import Patience, deferral_of, put_off
from tests.records import T0, a_prompt

SETTINGS = RuntimeSettings(defer_base_s=30, defer_cap_s=900, defer_deadline_s=3_600)
MESSAGE = InboundMessage(topic="t", partition=0, offset=7, key=b"k", value=b"v")
ALMOST_1 = 0.999


def deferred(*, is_down: bool = False) -> Deferral:
    return deferral_of(
        MESSAGE,
        a_prompt(),
        RetryLaterError("no answer", dependency="server:a"),
        service="generation",
        num_tries=12,
        at=T0,
        settings=SETTINGS,
        is_down=is_down,
        jitter=ALMOST_1,
    )


def after(deferral: Deferral, *, jitter: float = ALMOST_1, is_down: bool = False) -> Deferral:
    return put_off(
        deferral,
        RetryLaterError("no answer", dependency="server:a"),
        at=T0,
        settings=SETTINGS,
        is_down=is_down,
        jitter=jitter,
    )


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3)), max_size=50))
def test_failure_counts_against_a_record_only_if_others_succeeded_since_its_last(
    history: list[tuple[str | None, int]],
) -> None:
    patience = Patience()
    successes: dict[str | None, int] = {}
    expected, last = 0, object()
    for dependency, num_new in history:
        successes[dependency] = successes.get(dependency, 0) + num_new
        expected += dependency == last and num_new > 0
        last = dependency
        patience.fail(dependency, successes[dependency])
    assert patience.num_own_failures == expected
    assert patience.num_tries == len(history)


def test_record_that_fails_while_nobody_succeeds_is_not_to_blame() -> None:
    patience = Patience()
    for _ in range(1_000):
        patience.fail("server:a", 5)
    assert patience.num_own_failures == 0


def test_deferred_record_remembers_all_that_it_takes_to_try_it_again() -> None:
    deferral = deferred()
    assert (deferral.message, deferral.prompt_key) == (MESSAGE, a_prompt().key)
    assert (deferral.reason, deferral.dependency, deferral.tries) == ("no answer", "server:a", 12)
    assert deferral.deferred_at == T0
    assert deferral.deadline_at == T0 + timedelta(hours=1)
    assert T0 < deferral.due_at <= T0 + timedelta(seconds=30)


def test_pauses_grow_up_to_the_cap() -> None:
    tried = [replace(deferred(), tries=tries) for tries in range(8)]
    pauses = [round((after(each).due_at - T0).total_seconds()) for each in tried]
    assert pauses == [30, 60, 120, 240, 480, 899, 899, 899]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pause_is_never_longer_than_the_cap_nor_shorter_than_a_tenth_of_the_base(
    tries: int, jitter: float
) -> None:
    pause_s = (after(replace(deferred(), tries=tries), jitter=jitter).due_at - T0).total_seconds()
    assert SETTINGS.defer_base_s / 10 <= pause_s <= SETTINGS.defer_cap_s


def test_record_whose_dependency_is_down_is_due_at_once_and_not_blamed() -> None:
    assert deferred(is_down=True).due_at == T0
    later = after(deferred(), is_down=True)
    assert (later.due_at, later.tries) == (T0, deferred().tries)


def test_every_try_but_those_in_an_outage_counts() -> None:
    assert after(after(deferred())).tries == deferred().tries + 2


def test_reason_is_kept_short_and_storable() -> None:
    error = RetryLaterError("x" * 10_000 + "\ud800")
    short = put_off(deferred(), error, at=T0, settings=SETTINGS, is_down=False, jitter=0)
    assert len(short.reason) == 2_000
    half = put_off(
        deferred(), RetryLaterError("\ud800"), at=T0, settings=SETTINGS, is_down=False, jitter=0
    )
    assert half.reason.encode()
