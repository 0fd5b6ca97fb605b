"""Time that leaps: an hour of sleep costs nothing, and everything comes in its order."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from deltawheel.infra.simulated.seeded_random import SeededRandom
from deltawheel.infra.simulated.virtual_time import VirtualClock, VirtualTimeLoop

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    yield loop
    loop.close()


def test_an_hour_of_sleep_is_an_hour_by_the_clock_and_no_time_at_all(loop: VirtualTimeLoop) -> None:
    clock = VirtualClock(loop, began_at=T0)
    loop.run_until_complete(clock.sleep(3_600))
    assert clock.monotonic() == 3_600
    assert clock.now() == T0 + timedelta(hours=1)


def test_sleepers_wake_in_the_order_of_their_times(loop: VirtualTimeLoop) -> None:
    woken: list[tuple[float, float]] = []

    async def sleep(duration_s: float) -> None:
        await asyncio.sleep(duration_s)
        woken.append((duration_s, loop.time()))

    async def sleep_all() -> None:
        await asyncio.gather(*map(sleep, (3.0, 0.1, 2.0, 0.1)))

    loop.run_until_complete(sleep_all())
    assert woken == [(0.1, 0.1), (0.1, 0.1), (2.0, 2.0), (3.0, 3.0)]


def test_a_clock_that_jumps_is_wrong_about_the_day_and_not_about_durations(
    loop: VirtualTimeLoop,
) -> None:
    clock = VirtualClock(loop, began_at=T0)
    clock.wrong_by = timedelta(hours=-2)
    assert (clock.now(), clock.monotonic()) == (T0 - timedelta(hours=2), 0.0)


def test_whoever_waits_outside_of_the_loop_lets_everything_in_it_go_on(
    loop: VirtualTimeLoop,
) -> None:
    done: list[float] = []
    clock = VirtualClock(loop, began_at=T0)
    loop.call_later(5.0, lambda: done.append(loop.time()))
    clock.wait(4.0)
    assert done == []
    clock.wait(4.0)
    assert (done, clock.monotonic()) == ([5.0], 8.0)


def test_a_blocking_call_is_made_late_and_answered_later() -> None:
    loop = VirtualTimeLoop(lambda: (1.0, 2.0))
    made: list[float] = []

    async def call() -> float:
        await asyncio.to_thread(lambda: made.append(loop.time()))
        return loop.time()

    assert (loop.run_until_complete(call()), made) == (3.0, [1.0])
    loop.close()


def test_what_a_blocking_call_raises_reaches_its_caller(loop: VirtualTimeLoop) -> None:
    def refuse() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        loop.run_until_complete(asyncio.to_thread(refuse))


def test_a_call_whose_caller_is_gone_is_never_made() -> None:
    loop = VirtualTimeLoop(lambda: (1.0, 0.0))
    made: list[str] = []

    async def leave() -> None:
        task = asyncio.ensure_future(asyncio.to_thread(made.append, "call"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(5.0)

    loop.run_until_complete(leave())
    assert made == []
    loop.close()


def test_a_simulation_that_waits_for_nothing_says_so(loop: VirtualTimeLoop) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    task = loop.create_task(wait())
    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        loop.run_until_complete(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait({task}))


def test_tokens_come_from_the_seed() -> None:
    first, second = SeededRandom(7), SeededRandom(7)
    assert first.token() == second.token() != first.token()
    assert first.seeded("x").random() == second.seeded("x").random()
