"""Worlds in which capabilities are known, so that rotation policies can be compared.

Nothing is asked of a model: answers to probes and judgements are drawn from the truth, right or
preferred with the odds that the ladder's own unit stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import exp
from types import MappingProxyType
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.ladder import Contest, ProbeCount
from deltawheel.contracts.pool import Pool

__all__ = ["WORLDS", "World"]

_DOMAINS: Final = ("sums", "proofs")
_EASE: Final[Mapping[str, float]] = MappingProxyType({"sums": 0.5, "proofs": -1.0})
_PROMPT_TOKENS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A member as it is declared and as it is; `truth` by domain, in the order of `_DOMAINS`."""

    declared: float
    truth: tuple[float, float]
    tokens: int


_WRONG: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "large": _Kind(declared=1.5, truth=(2.0, 2.5), tokens=900),
        "medium": _Kind(declared=2.0, truth=(1.0, 1.2), tokens=500),
        "tuned": _Kind(declared=0.0, truth=(1.6, -0.5), tokens=400),
        "small": _Kind(declared=1.0, truth=(0.2, 0.8), tokens=250),
        "tiny": _Kind(declared=-0.5, truth=(-1.2, -1.5), tokens=120),
    }
)


class World:
    """Five members whose true capabilities are known; see `WORLDS`."""

    def __init__(self, kinds: Mapping[str, _Kind], *, knows_truth: bool = False) -> None:
        """Declare the members as their kinds say; or, for each domain, exactly as they are."""
        self._kinds = kinds
        self._knows_truth = knows_truth

    @property
    def domains(self) -> tuple[str, ...]:
        """Of which the prompts are, in turn."""
        return _DOMAINS

    def knowing(self) -> "World":
        """Return the same world, declared exactly as it is: what an oracle deals over."""
        return World(self._kinds, knows_truth=True)

    def pool(self, domain: str) -> Pool:
        """Return the pool as it is declared; an oracle's knows the domain."""
        return Pool.from_log(
            [
                PoolEvent(
                    kind=PoolEventKind.DECLARED,
                    generator=self._member(name, domain),
                    reason="simulated",
                    at=datetime(1970, 1, 1, tzinfo=UTC),
                    cause=name,
                )
                for name in self._kinds
            ]
        )

    def _member(self, name: str, domain: str) -> Generator:
        declared = self._kinds[name].declared
        return Generator(
            name=name,
            revision="1",
            endpoint="http://simulated/v1",
            model=name,
            capability=self.truth(name, domain) if self._knows_truth else declared,
            capability_stderr=0.0 if self._knows_truth else 1.0,
        )

    def truth(self, name: str, domain: str) -> float:
        """Return how capable a member is in a domain."""
        return self._kinds[name].truth[_DOMAINS.index(domain)]

    def tokens(self, name: str) -> int:
        """Return what one prompt costs with this member, read and written."""
        return _PROMPT_TOKENS + self._kinds[name].tokens

    def probe(self, name: str, domain: str, *, num_items: int, random: Random) -> ProbeCount:
        """Draw how many held-out prompts it gets right."""
        chance = _chance(self.truth(name, domain) + _EASE[domain])
        right = sum(random.random() < chance for _ in range(num_items))
        return ProbeCount(
            reference=f"{name}@1", domain=domain, num_items=num_items, num_right=right
        )

    def judge(self, first: str, second: str, domain: str, *, random: Random) -> Contest:
        """Draw which of two the judge prefers."""
        odds = self.truth(first, domain) - self.truth(second, domain)
        wins = int(random.random() < _chance(odds))
        return Contest(
            first=f"{first}@1", second=f"{second}@1", domain=domain, wins=wins, losses=1 - wins
        )


def _chance(log_odds: float) -> float:
    return 1 / (1 + exp(-log_odds))


WORLDS: Final[Mapping[str, World]] = MappingProxyType(
    {
        "wrong-priors": World(_WRONG),
        "right-priors": World(_WRONG, knows_truth=True),
        "identical": World(
            {
                name: _Kind(declared=kind.declared, truth=(0.5, 0.5), tokens=kind.tokens)
                for name, kind in _WRONG.items()
            }
        ),
    }
)
"""Declared in another order than they are, and off by up to 1.6; declared exactly as they are; and
declared to differ though they do not, where no policy can have a difference to give."""
