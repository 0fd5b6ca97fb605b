"""Prompts dealt on trial: to whom, with which generator deltas, and who is active."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from deltawheel.contracts.ladder import LadderEvidence, UpdateBy
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.probe import counted
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import RotationPolicy, Settings
from deltawheel.services.generation.rotation import GeneratorPair, Table, active_pairs, deal
from deltawheel.services.generation.turnover import window_at

if TYPE_CHECKING:
    from deltawheel.contracts.store import Store

__all__ = ["Preview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a policy would deal in one domain, at one moment of the pool."""

    domain: str
    policy: RotationPolicy
    window: int
    pool: Pool
    table: Table
    active: frozenset[str]
    number: int
    counts: Mapping[GeneratorPair, int]

    @classmethod
    def of(
        cls, store: "Store", settings: Settings, *, domain: str, number: int, at: datetime
    ) -> Self:
        """Deal so many prompts that nobody has submitted.

        Raises:
            RetryLaterError: no two members can be paired in this domain now.
        """
        rotation, update_by = settings.rotation, settings.ladder.update_by
        pool, window = Pool.from_log(store.pool_log()), window_at(at, rotation)
        table = Table.of(
            pool,
            rotation,
            domain=domain,
            window=window,
            evidence=LadderEvidence(
                probes=counted(store.probes()),
                contests=store.judged_work() if update_by is UpdateBy.JUDGED else (),
            ),
            update_by=update_by,
        )
        keys = (PromptKey(f"trial-{n}", 0) for n in range(number))
        pairs = active_pairs(pool, rotation, window=window)
        return cls(
            domain=domain,
            policy=rotation.policy,
            window=window,
            pool=pool,
            table=table,
            active=frozenset(member.name for pair in pairs for member in pair),
            number=number,
            counts=Counter(deal(key, table, rotation) for key in keys),
        )

    @property
    def mean(self) -> float:
        """Mean generator delta of what would be dealt, as the ladder has it."""
        deltas = {pair: self.table.ladder.delta(*pair).estimate for pair in self.counts}
        return sum(deltas[pair] * count for pair, count in self.counts.items()) / self.number

    def told(self) -> dict[str, Any]:
        """Return all of it, for machines."""
        return {
            "policy": self.policy,
            "domain": self.domain,
            "window": self.window,
            "ladder_revision": self.table.ladder.revision,
            "scale": self.table.ladder.scale,
            "members": [
                {
                    "generator": member.name,
                    "estimate": rating.estimate,
                    "stderr": rating.stderr,
                    "role": member.role,
                    "state": self._state(member.name),
                }
                for member in self.table.ladder.ranked(self.pool.ranked())
                for rating in [self.table.ladder.ratings[member.reference]]
            ],
            "pairs": self._pairs(),
            "mean_generator_delta": self.mean,
        }

    def members_table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return columns and rows of the members."""
        rows = [
            (
                it["generator"],
                f"{it['estimate']:+.2f} ± {it['stderr']:.2f}",
                it["role"],
                it["state"],
            )
            for it in self.told()["members"]
        ]
        return ("generator", "rating", "role", "state"), rows

    def pairs_table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return columns and rows of the pairs, those that are dealt most first."""
        rows = [
            (
                it["stronger"],
                it["weaker"],
                it["prompts"],
                f"{it['share']:.1%}",
                f"{it['generator_delta']:+.2f} ± {it['stderr']:.2f}",
            )
            for it in self._pairs()
        ]
        return ("stronger", "weaker", "prompts", "share", "generator delta"), rows

    def _pairs(self) -> list[dict[str, Any]]:
        pairs = sorted(self.table.pairs, key=lambda pair: -self.counts.get(pair, 0))
        return [
            {
                "stronger": stronger.name,
                "weaker": weaker.name,
                "prompts": self.counts.get((stronger, weaker), 0),
                "share": self.counts.get((stronger, weaker), 0) / self.number,
                "generator_delta": delta.estimate,
                "stderr": delta.stderr,
            }
            for stronger, weaker in pairs
            for delta in [self.table.ladder.delta(stronger, weaker)]
        ]

    def _state(self, name: str) -> str:
        if name in self.pool.absent:
            return "away"
        domains = self.pool.members[name].domains
        if domains is not None and self.domain not in domains:
            return "other domains"
        return "active" if name in self.active else "not active now"
