"""Micro-batches: many callers, one call."""

import asyncio
from collections.abc import Sequence

import pytest

from deltawheel.infra.clock import SystemClock
from deltawheel.services.runtime.batching import MicroBatcher
from tests.services.fakes import FakeClock


class Doubling:
    """Doubles numbers, and remembers how they came."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(numbers))
        await asyncio.sleep(0)
        if 13 in numbers:
            raise ArithmeticError("13")
        return [2 * number for number in numbers]


def a_batcher(
    run: Doubling, *, max_items: int = 4, max_wait_s: float = 0.02
) -> MicroBatcher[int, int]:
    return MicroBatcher(run, max_items=max_items, max_wait_s=max_wait_s, clock=SystemClock())


async def test_callers_share_a_batch_and_each_gets_its_own_result() -> None:
    run = Doubling()
    assert await asyncio.gather(*map(a_batcher(run), range(3))) == [0, 2, 4]
    assert run.batches == [[0, 1, 2]]


async def test_full_batch_does_not_wait() -> None:
    run = Doubling()
    batcher = a_batcher(run, max_wait_s=3_600)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*map(batcher, range(8))) == [2 * n for n in range(8)]
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_error_of_a_batch_reaches_its_callers_and_no_others() -> None:
    batcher = a_batcher(Doubling(), max_items=2)
    results = await asyncio.gather(*map(batcher, [1, 13, 2, 3]), return_exceptions=True)
    assert [type(result) for result in results] == [ArithmeticError, ArithmeticError, int, int]
    with pytest.raises(ArithmeticError):
        await batcher(13)
    assert await batcher(5) == 10


async def test_caller_that_gives_up_does_not_harm_the_others() -> None:
    batcher = a_batcher(Doubling())
    first, second = (asyncio.ensure_future(batcher(number)) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 4


async def test_wait_is_over_once_the_batch_before_has_taken_as_long() -> None:
    clock, released = FakeClock(), asyncio.Event()
    batches: list[list[int]] = []

    async def run(numbers: Sequence[int]) -> Sequence[int]:
        batches.append(list(numbers))
        if len(batches) == 1:
            await released.wait()
        return numbers

    batcher = MicroBatcher(run, max_items=2, max_wait_s=0.5, clock=clock)
    async with asyncio.timeout(10):
        first = [asyncio.create_task(batcher(number)) for number in (1, 2)]
        await asyncio.sleep(0.01)
        late = asyncio.create_task(batcher(3))
        await asyncio.sleep(0.01)
        clock.move(0.5)  # whoever sleeps on this clock is never woken
        released.set()
        assert await asyncio.gather(*first, late) == [1, 2, 3]
    assert batches == [[1, 2], [3]]
