"""Turns: no generator is asked more at the same time than it may be."""

import asyncio

import pytest

from deltawheel.contracts.generator import Generator
from deltawheel.services.runtime.turns import Turns
from tests.records import a_generator


async def most_at_once(turns: Turns, *generators: Generator, each: int = 10) -> dict[str, int]:
    """Ask all of them together; return by name how many requests were under way at most."""
    now = {generator.name: 0 for generator in generators}
    most = dict(now)

    async def ask(generator: Generator) -> None:
        async with turns.of(generator):
            now[generator.name] += 1
            most[generator.name] = max(most[generator.name], now[generator.name])
            for _ in range(5):
                await asyncio.sleep(0)
            now[generator.name] -= 1

    await asyncio.gather(*(ask(generator) for generator in generators for _ in range(each)))
    return most


@pytest.mark.parametrize("limit", [1, 3])
async def test_limited_generator_waits_and_others_do_not(limit: int) -> None:
    limited, free = a_generator("weak", max_in_flight=limit), a_generator("strong")
    assert await most_at_once(Turns(), limited, free) == {"weak": limit, "strong": 10}


async def test_place_is_given_back_when_asking_fails() -> None:
    turns, limited = Turns(), a_generator("weak", max_in_flight=1)
    with pytest.raises(ValueError, match="no answer"):
        async with turns.of(limited):
            raise ValueError("no answer")
    assert await most_at_once(turns, limited) == {"weak": 1}


async def test_changed_limit_holds_for_what_comes_after() -> None:
    turns = Turns()
    assert await most_at_once(turns, a_generator("weak", max_in_flight=1)) == {"weak": 1}
    assert await most_at_once(turns, a_generator("weak", max_in_flight=4)) == {"weak": 4}
