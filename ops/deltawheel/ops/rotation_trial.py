"""Rotation policies side by side in a world of known capabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any, Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ladder import Contest, LadderEvidence, ProbeCount, UpdateBy
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import Explore, RotationPolicy, RotationSettings
from deltawheel.ops.rotation_world import World
from deltawheel.services.generation.rotation import Table, deal

__all__ = ["CONTENDERS", "ORACLE", "Outcome", "run_trial"]

ORACLE: Final = "oracle"
CONTENDERS: Final = ("round-robin", "weighted", "thompson", "ucb", ORACLE)
"""The policies; delta-targeting under its two ways to explore, and as it would deal if it knew."""

_PROBED_EVERY: Final = 100
_PROBE_ITEMS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dealt:
    """One prompt: the true delta of its pair, what it cost, and what the ladder believed."""

    delta: float
    believed: float
    tokens: int
    is_in_band: bool
    regret: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy made of a world."""

    policy: str
    dealt: Sequence[_Dealt]

    def told(self) -> dict[str, Any]:
        """Return its figures; regret over each quarter of the prompts, in their order."""
        tokens = sum(it.tokens for it in self.dealt)
        quarter = max(1, len(self.dealt) // 4)
        last = self.dealt[-quarter:]
        return {
            "policy": self.policy,
            "mean_delta": fmean(it.delta for it in self.dealt),
            "delta_per_1000_tokens": 1_000 * sum(it.delta for it in self.dealt) / tokens,
            "share_in_band": fmean(it.is_in_band for it in self.dealt),
            "regret": fmean(it.regret for it in self.dealt),
            "regret_by_quarter": [
                fmean(it.regret for it in self.dealt[start : start + quarter])
                for start in range(0, min(4 * quarter, len(self.dealt)), quarter)
            ],
            "believed_at_the_end": fmean(it.believed for it in last),
            "true_at_the_end": fmean(it.delta for it in last),
        }


def run_trial(
    world: World,
    contender: str,
    *,
    rotation: RotationSettings,
    update_by: UpdateBy,
    number: int,
    random: Random,
) -> Outcome:
    """Deal so many prompts, the domains in turn; the ladder learns as it does in a wheel.

    Before the first prompt and after every hundredth each member is probed with ten prompts of
    each domain; every dealt pair is judged.
    """
    if contender == ORACLE:
        world, update_by = world.knowing(), UpdateBy.NONE
    rotation = _rotation_of(contender, rotation)
    probes: list[ProbeCount] = []
    contests: list[Contest] = []
    tables: dict[str, Table] = {}
    dealt = []
    for n in range(number):
        if n % _PROBED_EVERY == 0:
            probes += _probed(world, random)
            evidence = LadderEvidence(probes=probes, contests=contests)
            tables = {
                domain: Table.of(
                    world.pool(domain),
                    rotation,
                    domain=domain,
                    window=n // _PROBED_EVERY,
                    evidence=evidence,
                    update_by=update_by,
                )
                for domain in world.domains
            }
        domain = world.domains[n % len(world.domains)]
        pair = deal(PromptKey(f"trial-{n}", 0), tables[domain], rotation)
        contests.append(world.judge(pair[0].name, pair[1].name, domain, random=random))
        dealt.append(_scored(world, domain, pair, tables[domain], rotation.target_delta))
    return Outcome(policy=contender, dealt=dealt)


def _rotation_of(contender: str, rotation: RotationSettings) -> RotationSettings:
    if contender in {RotationPolicy.ROUND_ROBIN, RotationPolicy.WEIGHTED}:
        return rotation.model_copy(update={"policy": RotationPolicy(contender)})
    explore = Explore.UCB if contender == Explore.UCB else Explore.THOMPSON
    return rotation.model_copy(
        update={"policy": RotationPolicy.DELTA_TARGETING, "explore": explore}
    )


def _probed(world: World, random: Random) -> list[ProbeCount]:
    return list(
        chain.from_iterable(
            (
                world.probe(name, domain, num_items=_PROBE_ITEMS, random=random)
                for name in world.pool(domain).members
            )
            for domain in world.domains
        )
    )


def _scored(
    world: World,
    domain: str,
    pair: tuple[Generator, Generator],
    table: Table,
    band: tuple[float, float],
) -> _Dealt:
    stronger, weaker = (member.name for member in pair)
    delta = world.truth(stronger, domain) - world.truth(weaker, domain)
    outside = max(band[0] - delta, delta - band[1], 0.0)
    return _Dealt(
        delta=delta,
        believed=table.ladder.delta(*pair).estimate,
        tokens=world.tokens(stronger) + world.tokens(weaker),
        is_in_band=not outside,
        regret=max(0.0, _best(world, domain, band) - world.truth(stronger, domain) + outside),
    )


def _best(world: World, domain: str, band: tuple[float, float]) -> float:
    """Return the level of the best pair's stronger member, less what its delta lacks of the band.

    The best pair is what delta-targeting deals when it knows: nearest to the band, then the most
    capable generator of `chosen`. A pair's regret is how much less it has of the two.
    """
    levels = sorted(
        (world.truth(name, domain) for name in world.pool(domain).members), reverse=True
    )
    pairs = [(high, high - low) for n, high in enumerate(levels) for low in levels[n + 1 :]]
    outside, level = min(
        (max(band[0] - delta, delta - band[1], 0.0), -high) for high, delta in pairs
    )
    return -level - outside
