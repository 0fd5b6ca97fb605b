from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.services.generation.rotation import generator_pairs, round_robin

AT = datetime(2026, 1, 1, tzinfo=UTC)


def a_pool(*names: str, promoted: tuple[str, ...] = ()) -> Pool:
    log = [
        PoolEvent(
            kind=PoolEventKind.PROMOTED if name in promoted else PoolEventKind.DECLARED,
            generator=Generator(
                name=name, revision="1", endpoint="http://x/v1", model=name, capability=-place
            ),
            reason="test",
            at=AT,
            cause=name,
        )
        for place, name in enumerate(names)
    ]
    return Pool.from_log(log)


def test_every_two_of_the_pool_are_a_pair_with_the_more_capable_first() -> None:
    pairs = generator_pairs(a_pool("strong", "mid", "weak"), None)
    assert [(a.name, b.name) for a, b in pairs] == [
        ("strong", "mid"),
        ("strong", "weak"),
        ("mid", "weak"),
    ]


def test_configured_pairs_are_dealt_over_and_no_others() -> None:
    pairs = generator_pairs(a_pool("strong", "mid", "weak"), [("weak", "strong")])
    assert [(a.name, b.name) for a, b in pairs] == [("strong", "weak")]


def test_promoted_member_is_paired_though_the_settings_cannot_name_it() -> None:
    pool = a_pool("strong", "mid", "weak", "v1", promoted=("v1",))
    pairs = generator_pairs(pool, [("strong", "weak")])
    assert {(a.name, b.name) for a, b in pairs} == {
        ("strong", "weak"),
        ("strong", "v1"),
        ("mid", "v1"),
        ("weak", "v1"),
    }


def test_pool_of_one_asks_to_be_tried_later() -> None:
    with pytest.raises(RetryLaterError, match="no two generators"):
        round_robin(PromptKey("prompt_1", 0), generator_pairs(a_pool("strong"), None))


@given(st.text(), st.integers(0, 5))
def test_same_prompt_is_dealt_to_the_same_pair(prompt_id: str, round_: int) -> None:
    pairs = generator_pairs(a_pool("strong", "mid", "weak"), None)
    key = PromptKey(prompt_id, round_)
    assert round_robin(key, pairs) == round_robin(key, pairs)


def test_prompts_are_dealt_evenly() -> None:
    pairs = generator_pairs(a_pool("strong", "mid", "weak"), None)
    keys = (PromptKey(f"prompt_{n}", 0) for n in range(3_000))
    counts = Counter(tuple(g.name for g in round_robin(key, pairs)) for key in keys)
    assert all(abs(count - 1_000) < 150 for count in counts.values())
