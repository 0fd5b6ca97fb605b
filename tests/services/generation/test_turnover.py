"""Turnover: few members are active at once, others in the next window, and every two meet."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.generator import Generator, GeneratorRole
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import RotationSettings
from deltawheel.services.generation.rotation import Table, active_pairs, deal
from deltawheel.services.generation.turnover import active_members, window_at
from tests.records import a_generator, a_pool_event, seconds

POOL = [a_generator(f"m{n}") for n in range(6)]
PAIRS = list(combinations(POOL, 2))


def active(window: int, max_active: int | None = 3, pool: list[Generator] = POOL) -> set[str]:
    pairs = list(combinations(pool, 2))
    return set(active_members(pairs, window=window, max_active=max_active))


@given(window=st.integers(0, 10**6), max_active=st.integers(2, 8), order=st.permutations(PAIRS))
def test_as_many_are_active_as_may_be_and_the_order_of_the_pool_means_nothing(
    window: int, max_active: int, order: list[tuple[Generator, Generator]]
) -> None:
    found = active(window, max_active)
    assert len(found) == min(max_active, len(POOL))
    turned = [(second, first) for first, second in order]
    assert active_members(turned, window=window, max_active=max_active) == found


def test_all_are_active_where_nothing_limits_them() -> None:
    assert active(0, None) == {member.name for member in POOL}


@pytest.mark.parametrize("max_active", [2, 3])
def test_every_two_meet_in_the_long_run(max_active: int) -> None:
    met = Counter(
        pair
        for window in range(600)
        for pair in combinations(sorted(active(window, max_active)), 2)
    )
    assert len(met) == len(PAIRS)
    assert max(met.values()) < 2.5 * min(met.values())


def test_who_weighs_more_is_active_more_often_and_who_weighs_nothing_only_where_there_is_room() -> (
    None
):
    pool = [
        *POOL[:4],
        POOL[4].model_copy(update={"weight": 4.0}),
        POOL[5].model_copy(update={"weight": 0.0}),
    ]
    seen = Counter(name for window in range(600) for name in active(window, 2, pool))
    assert seen["m4"] > 1.8 * seen["m0"]
    assert seen["m5"] == 0
    assert "m5" in active(0, 6, pool)


def test_the_set_changes_with_the_window_and_not_within_it() -> None:
    rotation = RotationSettings(max_active=2, turnover_s=60)
    start = window_at(seconds(0), rotation)
    assert window_at(seconds(59), rotation) == start
    assert window_at(seconds(60), rotation) == start + 1
    assert window_at(seconds(60), RotationSettings()) == 0
    assert len({frozenset(active(window)) for window in range(20)}) > 5


def a_pool(*members: Generator) -> Pool:
    return Pool.from_log([a_pool_event(member) for member in members])


def test_an_active_set_can_always_be_paired_whatever_the_roles() -> None:
    sided = [it.model_copy(update={"role": GeneratorRole.WEAKER}) for it in POOL[:4]]
    pool = a_pool(*sided, *POOL[4:])
    rotation = RotationSettings(max_active=2)
    assert all(len(active_pairs(pool, rotation, window=window)) == 1 for window in range(50))


def test_no_prompt_is_dealt_to_more_members_than_are_active() -> None:
    pool, rotation = a_pool(*POOL), RotationSettings(max_active=3)
    dealt: dict[int, set[str]] = {}
    for window in range(5):
        table = Table.of(pool, rotation, domain="sums", window=window)
        dealt[window] = {
            member.name
            for n in range(100)
            for member in deal(PromptKey(f"prompt_{n}", 0), table, rotation)
        }
    assert {len(names) for names in dealt.values()} == {3}
    assert len({frozenset(names) for names in dealt.values()}) > 1
