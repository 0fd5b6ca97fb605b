import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator, GeneratorRole, PoolEvent, PoolEventKind
from deltawheel.contracts.ladder import NO_EVIDENCE, LadderEvidence, ProbeCount
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import RotationPolicy, RotationSettings
from deltawheel.services.generation.rotation import Table, deal

AT = datetime(2026, 1, 1, tzinfo=UTC)


EVENLY = RotationSettings()


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


def with_members(pool: Pool, **members: Mapping[str, object]) -> Pool:
    """Change members of a pool by name."""
    changed = {
        name: member.model_copy(update=members.get(name, {}))
        for name, member in pool.members.items()
    }
    return replace(pool, members=changed)


def a_table(
    pool: Pool,
    rotation: RotationSettings = EVENLY,
    *,
    domain: str = "sums",
    window: int = 0,
    evidence: LadderEvidence = NO_EVIDENCE,
) -> Table:
    return Table.of(pool, rotation, domain=domain, window=window, evidence=evidence)


def names(table: Table) -> list[tuple[str, str]]:
    return [(stronger.name, weaker.name) for stronger, weaker in table.pairs]


def test_every_two_of_the_pool_are_a_pair_with_the_more_capable_first() -> None:
    assert names(a_table(a_pool("strong", "mid", "weak"))) == [
        ("strong", "mid"),
        ("strong", "weak"),
        ("mid", "weak"),
    ]


def test_configured_pairs_are_dealt_over_and_no_others() -> None:
    rotation = RotationSettings(pairs=[("weak", "strong")])
    assert names(a_table(a_pool("strong", "mid", "weak"), rotation)) == [("strong", "weak")]


def test_promoted_member_is_paired_though_the_settings_cannot_name_it() -> None:
    pool = a_pool("strong", "mid", "weak", "v1", promoted=("v1",))
    rotation = RotationSettings(pairs=[("strong", "weak")])
    assert set(names(a_table(pool, rotation))) == {
        ("strong", "weak"),
        ("strong", "v1"),
        ("mid", "v1"),
        ("weak", "v1"),
    }


def test_who_is_more_capable_follows_the_domains_probes() -> None:
    pool = a_pool("strong", "weak")
    probes = [
        ProbeCount(reference=f"{name}@1", domain="sums", num_items=100, num_right=right)
        for name, right in (("strong", 10), ("weak", 90))
    ]
    evidence = LadderEvidence(probes=probes)
    assert names(a_table(pool, evidence=evidence)) == [("weak", "strong")]
    assert names(a_table(pool, evidence=evidence, domain="poems")) == [("strong", "weak")]


def test_members_are_dealt_prompts_of_their_own_domains_alone() -> None:
    pool = with_members(
        a_pool("strong", "mid", "weak"), mid={"domains": ("sums",)}, weak={"domains": ("poems",)}
    )
    assert names(a_table(pool, domain="sums")) == [("strong", "mid")]
    assert names(a_table(pool, domain="poems")) == [("strong", "weak")]
    alone = a_table(pool, domain="maps")
    assert names(alone) == []
    with pytest.raises(RetryLaterError, match="no two generators to pair for domain 'maps'"):
        deal(PromptKey("prompt_1", 0), alone, RotationSettings())


def test_a_role_decides_the_side_whatever_the_ladder_says() -> None:
    pool = with_members(
        a_pool("strong", "mid", "weak"),
        strong={"role": GeneratorRole.WEAKER},
        weak={"role": GeneratorRole.STRONGER},
    )
    table = a_table(pool)
    assert set(names(table)) == {("mid", "strong"), ("weak", "strong"), ("weak", "mid")}
    delta = table.ladder.delta(*next(it for it in table.pairs if it[0].name == "weak"))
    assert delta.estimate < 0, "a delta is told as it is believed"


def test_two_for_the_same_side_are_no_pair() -> None:
    pool = with_members(
        a_pool("strong", "mid", "weak"),
        strong={"role": GeneratorRole.WEAKER},
        mid={"role": GeneratorRole.WEAKER},
    )
    assert set(names(a_table(pool))) == {("weak", "strong"), ("weak", "mid")}


POLICIES = [
    *(RotationSettings(policy=policy) for policy in RotationPolicy),
    RotationSettings(policy="delta-targeting", explore="ucb"),
]


def shares(
    pool: Pool, rotation: RotationSettings, *, number: int = 3_000
) -> dict[tuple[str, ...], float]:
    """Return which share of prompts each pair is dealt."""
    table = a_table(pool, rotation)
    keys = (PromptKey(f"prompt_{n}", 0) for n in range(number))
    counts = Counter(tuple(g.name for g in deal(key, table, rotation)) for key in keys)
    return {dealt: count / number for dealt, count in counts.items()}


@pytest.mark.parametrize("rotation", POLICIES)
def test_pool_of_one_asks_to_be_tried_later(rotation: RotationSettings) -> None:
    with pytest.raises(RetryLaterError, match="no two generators"):
        deal(PromptKey("prompt_1", 0), a_table(a_pool("strong"), rotation), rotation)


@given(st.text(), st.integers(0, 5), st.sampled_from(POLICIES), st.randoms())
def test_same_prompt_is_dealt_to_the_same_pair_whatever_the_order_of_the_pool(
    prompt_id: str, round_: int, rotation: RotationSettings, random: Random
) -> None:
    order = ["strong", "mid", "weak"]
    pool = a_pool(*order)
    key = PromptKey(prompt_id, round_)
    table = a_table(pool, rotation)
    dealt = deal(key, table, rotation)
    assert dealt in table.pairs
    random.shuffle(order)
    shuffled = replace(pool, members={name: pool.members[name] for name in order})
    assert deal(key, a_table(shuffled, rotation), rotation) == dealt


def test_prompts_are_dealt_evenly() -> None:
    found = shares(a_pool("strong", "mid", "weak"), RotationSettings())
    assert all(abs(share - 1 / 3) < 0.05 for share in found.values())


def test_order_of_the_deal_has_not_changed_since_the_first_release() -> None:
    table = a_table(a_pool("strong", "mid", "weak"))
    dealt = [deal(PromptKey(f"prompt_{n}", 0), table, RotationSettings()) for n in range(8)]
    digest = hashlib.sha256(b"prompt_0:0").digest()
    assert dealt[0] == table.pairs[int.from_bytes(digest[:8]) % 3]


# Weighted


def test_pairs_are_dealt_by_the_product_of_their_weights() -> None:
    pool = with_members(a_pool("strong", "mid", "weak"), mid={"weight": 3.0})
    found = shares(pool, RotationSettings(policy="weighted"))
    wanted = {("strong", "mid"): 3 / 7, ("strong", "weak"): 1 / 7, ("mid", "weak"): 3 / 7}
    assert all(abs(found[dealt] - share) < 0.05 for dealt, share in wanted.items())


def test_member_without_weight_is_dealt_nothing_unless_all_are() -> None:
    pool = a_pool("strong", "mid", "weak")
    weighted = RotationSettings(policy="weighted")
    found = shares(with_members(pool, mid={"weight": 0.0}), weighted)
    assert found == {("strong", "weak"): 1.0}
    nobody = with_members(pool, strong={"weight": 0.0}, mid={"weight": 0.0}, weak={"weight": 0.0})
    assert len(shares(nobody, weighted)) == 3


# Delta targeting


def sure(pool: Pool) -> Pool:
    return with_members(pool, **{name: {"capability_stderr": 0.0} for name in pool.members})


def targeting(low: float, high: float) -> RotationSettings:
    return RotationSettings(policy="delta-targeting", target_delta=(low, high))


def test_most_capable_pair_inside_the_band_is_dealt_where_all_is_known() -> None:
    pool = sure(a_pool("best", "good", "fair", "poor"))
    assert shares(pool, targeting(1.5, 2.5)) == {("best", "fair"): 1.0}
    assert shares(pool, targeting(0.5, 2.5)) == {("best", "fair"): 1.0}
    assert shares(pool, targeting(2.9, 3.1)) == {("best", "poor"): 1.0}


def test_nearest_pair_is_dealt_where_none_is_inside_the_band() -> None:
    pool = sure(a_pool("best", "good", "fair"))
    assert shares(pool, targeting(9, 10)) == {("best", "fair"): 1.0}


def test_pair_of_which_little_is_known_is_tried_by_its_chance() -> None:
    pool = with_members(
        sure(a_pool("best", "good", "fair")), good={"capability_stderr": 1.0, "capability": -1.0}
    )
    found = shares(pool, targeting(1.5, 2.5))
    assert 0.05 < found[("best", "good")] < 0.5, "its delta is in the band now and then"
    assert found[("best", "fair")] > 0.4


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=5),
    st.floats(0, 3),
    st.floats(0, 3),
    st.text(max_size=5),
)
def test_no_pair_is_nearer_to_the_band_than_the_one_that_is_dealt(
    capabilities: list[float], low: float, width: float, prompt_id: str
) -> None:
    called = [f"g{number}" for number in range(len(capabilities))]
    pool = with_members(
        sure(a_pool(*called)),
        **{name: {"capability": level} for name, level in zip(called, capabilities, strict=True)},
    )
    table = a_table(pool, targeting(low, low + width))

    def outside(pair: tuple[Generator, Generator]) -> float:
        delta = pair[0].capability - pair[1].capability
        return max(low - delta, delta - low - width, 0.0)

    dealt = deal(PromptKey(prompt_id, 0), table, targeting(low, low + width))
    assert outside(dealt) <= min(map(outside, table.pairs)) + 1e-9


def test_upper_confidence_deals_all_to_the_pair_that_may_be_the_best() -> None:
    pool = with_members(
        sure(a_pool("best", "good", "fair", "new")),
        new={"capability": -0.3, "capability_stderr": 1.0},
    )
    ucb = RotationSettings(policy="delta-targeting", explore="ucb", target_delta=(1.5, 2.5))
    assert shares(pool, ucb, number=50) == {("new", "fair"): 1.0}
    known = with_members(pool, new={"capability_stderr": 0.0})
    assert shares(known, ucb, number=50) == {("best", "fair"): 1.0}


@pytest.mark.parametrize("band", [(2.0, 1.0), (-1.0, 1.0), (0.0, float("inf"))])
def test_what_is_no_band_is_refused(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is no band; give two numbers from 0 up"):
        RotationSettings(target_delta=band)
