"""What the wheel has spent on traces, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.store import MemberTokens, PairYield, Store

__all__ = ["MemberSpending", "Spending", "read_spending"]

_PRICED_TOKENS: Final = 1_000_000
_COMINGS: Final = frozenset({PoolEventKind.DECLARED, PoolEventKind.ADDED, PoolEventKind.PROMOTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpending:
    """What one generator has taken, in tokens and in the operator's money."""

    tokens: MemberTokens
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What all stored traces have taken, whether or not a pair came of them.

    A generator's price is the last that the pool's log gives for its name, for all its tokens.
    Judges are not in it.
    """

    members: Sequence[MemberSpending]
    gained: PairYield

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return sum(member.tokens.tokens for member in self.members)

    @property
    def cost(self) -> Decimal:
        """All money."""
        return sum((member.cost for member in self.members), Decimal(0))

    def per(self, gained: float) -> tuple[float, float] | None:
        """Return tokens and money for each of so many pairs or points; None where none came."""
        if gained <= 0:
            return None
        return self.tokens / gained, float(self.cost) / gained

    @property
    def rates(self) -> Mapping[str, tuple[float, float] | None]:
        """Tokens and money for a pair, and for a point of sample and of generator delta."""
        return {
            "pair": self.per(self.gained.num_pairs),
            "sample": self.per(self.gained.sample_points),
            "generator": self.per(self.gained.generator_points),
        }


def read_spending(store: Store, log: Sequence[PoolEvent]) -> Spending:
    """Read what was spent, at the prices in the pool's log; cheap enough for every few seconds."""
    priced = {it.generator.name: it.generator for it in log if it.kind in _COMINGS}
    members = [
        MemberSpending(tokens=taken, cost=_cost(taken, priced.get(taken.generator)))
        for taken in store.member_tokens()
    ]
    return Spending(members=members, gained=store.pair_yield())


def _cost(taken: MemberTokens, generator: Generator | None) -> Decimal:
    if generator is None:
        return Decimal(0)
    money = (
        taken.prompt_tokens * generator.prompt_price
        + taken.completion_tokens * generator.completion_price
    )
    return money / _PRICED_TOKENS
