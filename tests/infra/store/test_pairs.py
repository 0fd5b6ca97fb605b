"""Reading stored pairs."""

import pytest

from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.store import PairYield, Store
from tests.infra.store.stored import add_judged
from tests.records import (
    JUDGE,
    a_pair,
    a_paired_end,
    a_prompt,
    a_quarantined_end,
    a_quarantined_pair,
    a_rubric,
    seconds,
)


def test_pairs_come_in_pages_by_id(store: Store) -> None:
    pairs = sorted(
        (a_pair(a_prompt(f"{number}+1=")) for number in range(5)), key=lambda pair: pair.pair_id
    )
    store.close_groups([a_paired_end(pair) for pair in pairs])
    assert store.pairs(after=None, limit=3) == pairs[:3]
    assert store.pairs(after=pairs[2].pair_id, limit=3) == pairs[3:]
    assert store.pairs(after=pairs[4].pair_id, limit=3) == []


def test_pairs_by_id_come_in_the_order_asked_for(store: Store) -> None:
    pairs = [a_pair(a_prompt(f"{number}+1=")) for number in range(3)]
    store.close_groups([a_paired_end(pair) for pair in pairs])
    asked = [pairs[index] for index in (2, 0, 1)]
    assert store.pairs_by_id([pair.pair_id for pair in asked]) == asked
    with pytest.raises(LookupError, match="pair_none"):
        store.pairs_by_id([pairs[0].pair_id, "pair_none"])


def test_pairs_are_counted_by_rubric_and_time(store: Store) -> None:
    for number in range(3):
        pair = a_pair(a_prompt(f"{number}+1="), paired_at=seconds(number))
        store.close_groups([a_paired_end(pair)])
    assert store.count_pairs() == 3
    assert store.count_pairs(since=seconds(0)) == 2
    assert store.count_pairs(rubric_digest=a_rubric().digest) == 3
    assert store.count_pairs(rubric_digest="sha256:other") == 0


def test_pairs_are_ranked_by_falling_delta_then_id(store: Store) -> None:
    rubric = a_rubric()
    levels = (3.0, 5.0, 3.0, 4.0)
    pairs = [
        a_pair(a_prompt(f"{number}+1="), chosen_level=level, paired_at=seconds(number))
        for number, level in enumerate(levels)
    ]
    store.close_groups([a_paired_end(pair) for pair in pairs])
    expected = sorted(pairs, key=lambda pair: (-pair.order_delta, pair.pair_id))

    def ranked(
        dimension: str, before: float, limit: int | None, judge: str = JUDGE
    ) -> list[tuple[str, float]]:
        rows = store.ranked_pairs(
            dimension=dimension,
            rubric_digest=rubric.digest,
            judge_revision=judge,
            paired_before=seconds(before),
            limit=limit,
        )
        return [(row.pair_id, row.delta) for row in rows]

    assert ranked(ORDER_BY, 99, None) == [(pair.pair_id, pair.order_delta) for pair in expected]
    assert ranked("factuality", 99, 2) == [
        (pair.pair_id, pair.order_delta) for pair in expected[:2]
    ]
    assert ranked(ORDER_BY, 1, None) == [(pairs[0].pair_id, 1.0)]
    assert ranked("unknown", 99, None) == []
    assert ranked(ORDER_BY, 99, None, judge="another@2") == []


def test_delta_stats_are_means_per_generator_pair_and_dimension(store: Store) -> None:
    store.close_groups(
        [
            a_paired_end(a_pair(a_prompt("1+1="), chosen_level=5, rejected_level=2)),
            a_paired_end(a_pair(a_prompt("2+1="), chosen_level=3, rejected_level=2)),
            a_paired_end(a_pair(a_prompt("3+1="), chosen_slot=1)),
        ]
    )
    stats = {
        (row.chosen_generator, row.rejected_generator, row.dimension): row
        for row in store.delta_stats()
    }
    assert len(stats) == 2 * (len(a_rubric().dimensions) + 1)
    up = stats["strong", "weak", ORDER_BY]
    assert (up.num_pairs, up.mean_delta, up.mean_generator_delta) == (2, 2.0, 1.0)
    assert stats["weak", "strong", "factuality"].mean_generator_delta == -1.0


def test_quarantined_pairs_come_in_pages_by_id(store: Store) -> None:
    prompts = [a_prompt(f"{number}+1=") for number in range(3)]
    held = sorted(
        (a_quarantined_pair(a_pair(prompt)) for prompt in prompts), key=lambda it: it.pair.pair_id
    )
    store.close_groups([a_quarantined_end(each) for each in held])
    store.close_groups([a_paired_end(a_pair(a_prompt("fine")))])
    assert store.quarantined(after=None, limit=2) == held[:2]
    assert store.quarantined(after=held[1].pair.pair_id, limit=2) == held[2:]
    ids = [held[0].pair.pair_id, "pair_none", "a\0b", a_pair(a_prompt("fine")).pair_id]
    assert store.quarantined_by_id(ids) == {held[0].pair.pair_id: held[0]}


def test_yield_is_the_pairs_and_their_points(store: Store) -> None:
    assert store.pair_yield() == PairYield(num_pairs=0, sample_points=0, generator_points=0)
    pairs = [a_pair(add_judged(store, a_prompt(text))) for text in ("1+1=", "2+2=")]
    store.close_groups([a_paired_end(pair) for pair in pairs])
    gained = store.pair_yield()
    assert gained.num_pairs == 2
    assert gained.sample_points == pytest.approx(sum(float(it.order_delta) for it in pairs))
    assert gained.generator_points == pytest.approx(2.0)
