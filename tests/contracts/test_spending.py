"""What was spent, and what came of it."""

from decimal import Decimal
from typing import cast

import pytest

from deltawheel.contracts.generator import PoolEvent, PoolEventKind
from deltawheel.contracts.spending import Spending, read_spending
from deltawheel.contracts.store import MemberTokens, PairYield, Store
from tests.records import a_generator, a_pool_event


class FakeStore:
    """Has counted what a test says."""

    def __init__(self, *taken: MemberTokens, gained: PairYield) -> None:
        self._taken = list(taken)
        self._gained = gained

    def member_tokens(self) -> list[MemberTokens]:
        return self._taken

    def pair_yield(self) -> PairYield:
        return self._gained


def taken(name: str, read: int, written: int) -> MemberTokens:
    return MemberTokens(generator=name, num_traces=1, prompt_tokens=read, completion_tokens=written)


def spent(*log: PoolEvent, gained: PairYield | None = None) -> Spending:
    nothing = PairYield(num_pairs=0, sample_points=0.0, generator_points=0.0)
    store = FakeStore(
        taken("strong", 3_000_000, 1_000_000),
        taken("weak", 1_000_000, 500_000),
        gained=gained or nothing,
    )
    return read_spending(cast(Store, store), log)


def priced(name: str, read: str, written: str, cause: str = "settings 0") -> PoolEvent:
    member = a_generator(name, prompt_price=Decimal(read), completion_price=Decimal(written))
    return a_pool_event(member, cause=cause)


def test_cost_is_tokens_at_the_prices_of_a_million() -> None:
    spending = spent(priced("strong", "0.5", "2"), priced("weak", "0", "0.1"))
    assert [member.cost for member in spending.members] == [Decimal("3.5"), Decimal("0.05")]
    assert (spending.tokens, spending.cost) == (5_500_000, Decimal("3.55"))


def test_last_price_of_a_name_counts_though_its_member_has_gone() -> None:
    before, after = priced("strong", "9", "9"), priced("strong", "1", "0", cause="settings 1")
    gone = a_pool_event(after.generator, kind=PoolEventKind.DRAINED, cause="operator 1")
    stale = a_pool_event(before.generator, kind=PoolEventKind.LEFT, cause="health 1")
    assert spent(before, after, gone, stale).cost == Decimal(3)


def test_generator_without_a_price_costs_nothing() -> None:
    assert spent().cost == 0


def test_rates_are_for_each_pair_and_each_point() -> None:
    gained = PairYield(num_pairs=11, sample_points=22.0, generator_points=5.5)
    rates = spent(priced("strong", "0", "2.2"), gained=gained).rates
    assert rates["pair"] == pytest.approx((500_000, 0.2))
    assert rates["sample"] == pytest.approx((250_000, 0.1))
    assert rates["generator"] == pytest.approx((1_000_000, 0.4))


def test_nothing_that_came_has_no_rate() -> None:
    gained = PairYield(num_pairs=2, sample_points=0.0, generator_points=-1.0)
    assert spent(gained=gained).rates["sample"] is None
    assert spent(gained=gained).rates["generator"] is None
    assert spent().rates["pair"] is None
