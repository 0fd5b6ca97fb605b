import asyncio
import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from deltawheel.infra.clock import SystemClock, SystemRandom

seeds = st.one_of(st.integers(), st.text())


def draws(stream: SystemRandom) -> list[object]:
    """Some of every kind, so that two streams that differ anywhere differ here."""
    items = list(range(20))
    stream.shuffle(items)
    return [
        *(stream.random() for _ in range(3)),
        *(stream.randrange(0, 1_000_000) for _ in range(3)),
        *(stream.choice("abcdefghij") for _ in range(5)),
        stream.gauss(0, 1),
        items,
    ]


@given(seeds)
def test_one_seed_gives_the_same_stream_wherever_it_comes_from(seed: int | str) -> None:
    expected = draws(SystemRandom(seed))
    assert draws(SystemRandom().seeded(seed)) == expected
    used = SystemRandom(7)
    draws(used)
    assert draws(used.seeded(seed)) == expected


@given(st.integers(min_value=0), st.integers(min_value=0))
def test_another_seed_gives_another_stream(first: int, second: int) -> None:
    is_same = draws(SystemRandom(first)) == draws(SystemRandom(second))
    assert is_same is (first == second)


def test_seeds_are_told_apart_by_type_and_text() -> None:
    streams = [draws(SystemRandom(seed)) for seed in (7, "7", "07", "", "a", "b")]
    assert all(streams.count(stream) == 1 for stream in streams)


def test_a_seeded_stream_does_not_take_from_its_parent() -> None:
    parent, untouched = SystemRandom(1), SystemRandom(1)
    draws(parent.seeded(2))
    assert draws(parent) == draws(untouched)


def test_streams_without_a_seed_differ_and_leave_the_process_alone() -> None:
    random.seed(1)
    state = random.getstate()
    assert draws(SystemRandom()) != draws(SystemRandom())
    assert random.getstate() == state


@given(seeds, st.integers(-10, 10), st.integers(1, 10))
def test_integers_stay_in_their_range(seed: int | str, start: int, width: int) -> None:
    stream = SystemRandom(seed)
    drawn = {stream.randrange(start, start + width) for _ in range(200)}
    assert drawn <= set(range(start, start + width))
    assert width == 1 or len(drawn) > 1


def test_shuffling_keeps_every_item() -> None:
    items = list(range(100))
    SystemRandom(3).shuffle(items)
    assert items != list(range(100))
    assert sorted(items) == list(range(100))


def test_tokens_cannot_be_guessed_from_the_seed() -> None:
    tokens = {SystemRandom(1).token() for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) == 32 and int(token, 16) >= 0 for token in tokens)


def test_the_time_is_aware_and_in_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert before <= now <= datetime.now(UTC)


async def test_waiting_and_sleeping_take_at_least_what_was_asked_for() -> None:
    clock = SystemClock()
    started = clock.monotonic()
    clock.wait(0.002)
    waited = clock.monotonic()
    await clock.sleep(0.002)
    assert waited - started >= 0.002
    assert clock.monotonic() - waited >= 0.002


async def test_sleeping_lets_other_tasks_run() -> None:
    other = asyncio.create_task(asyncio.sleep(0))
    await SystemClock().sleep(0.001)
    assert other.done()
