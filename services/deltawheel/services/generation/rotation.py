"""Rotation: which generators a prompt is dealt to.

Rotation makes the generator-level delta (arXiv:2604.08723): the gap in capability between the
generator of `chosen` and that of `rejected`. What it decides is stored as the assignment, so a
policy only has to be deterministic given the prompt's id and the pool's state.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, chain, combinations
from statistics import NormalDist
from typing import Final

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator, GeneratorRole
from deltawheel.contracts.ladder import NO_EVIDENCE, Ladder, LadderEvidence, UpdateBy
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import Explore, RotationPolicy, RotationSettings
from deltawheel.services.generation.turnover import active_members, window_at

__all__ = ["GeneratorPair", "Table", "active_pairs", "deal", "inactive"]

GeneratorPair = tuple[Generator, Generator]
"""The one that is meant for chosen first: by role, else the more capable."""

_STANDARD: Final = NormalDist()
_OPTIMISM: Final = 1.0
"""Standard errors by which upper confidence believes the best: 84 % of a normal belief."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What there is to deal in one domain, at one state of pool, ladder and window."""

    ladder: Ladder
    pairs: Sequence[GeneratorPair]

    @classmethod
    def of(
        cls,
        pool: Pool,
        rotation: RotationSettings,
        *,
        domain: str,
        window: int = 0,
        evidence: LadderEvidence = NO_EVIDENCE,
        update_by: UpdateBy = UpdateBy.PROBE,
    ) -> "Table":
        """Rate the members in the domain, and pair those that prompts of it may be dealt to."""
        ladder = Ladder.of(
            pool.ranked(),
            domain=domain,
            evidence=evidence,
            update_by=update_by,
            pool_revision=pool.revision,
        )
        pairs = [
            sided
            for pair in active_pairs(pool, rotation, window=window)
            if all(member.domains is None or domain in member.domains for member in pair)
            and (sided := _sided(ladder.ranked(pair)))
        ]
        rank = {it.reference: n for n, it in enumerate(ladder.ranked(pool.standing()))}
        pairs.sort(key=lambda pair: sorted(rank[member.reference] for member in pair))
        return cls(ladder=ladder, pairs=pairs)


def active_pairs(pool: Pool, rotation: RotationSettings, *, window: int) -> list[GeneratorPair]:
    """Return the pairs of all domains whose members stand and are active, in no meant order.

    Unset, these are every two. Where pairs are configured, those, and every promoted member with
    each other member, for nobody could name it beforehand.
    """
    named = None if rotation.pairs is None else {frozenset(pair) for pair in rotation.pairs}
    pairs = [
        pair
        for pair in combinations(pool.standing(), 2)
        if named is None
        or {member.name for member in pair} in named
        or not pool.promoted.isdisjoint(member.name for member in pair)
        if _sided(pair) and _share_a_domain(*pair)
    ]
    active = active_members(pairs, window=window, max_active=rotation.max_active)
    return [pair for pair in pairs if all(member.name in active for member in pair)]


def inactive(pool: Pool, rotation: RotationSettings, *, at: datetime) -> frozenset[str]:
    """Return the names of who stands and is not active now: nobody asks these anything.

    A question would load what `rotation.max_active` keeps unloaded.
    """
    if rotation.max_active is None:
        return frozenset()
    active = chain(*active_pairs(pool, rotation, window=window_at(at, rotation)))
    return frozenset(it.name for it in pool.standing()) - {it.name for it in active}


def _sided(ranked: Sequence[Generator]) -> GeneratorPair | None:
    """Return two members in the order that their roles leave; None if they leave none."""
    first, second = ranked
    for stronger, weaker in ((first, second), (second, first)):
        if stronger.role is not GeneratorRole.WEAKER and weaker.role is not GeneratorRole.STRONGER:
            return stronger, weaker
    return None


def _share_a_domain(one: Generator, other: Generator) -> bool:
    if one.domains is None or other.domains is None:
        return True
    return not set(one.domains).isdisjoint(other.domains)


def deal(key: PromptKey, table: Table, rotation: RotationSettings) -> GeneratorPair:
    """Return the pair that a prompt is dealt to, the one meant for chosen first.

    The same prompt and the same table give the same pair, on whichever machine: whatever is drawn
    is drawn from the prompt's id, so that members of the group share no counter.

    Raises:
        RetryLaterError: the pool has no two generators to pair at the moment.
    """
    if not table.pairs:
        until = " in this turnover of rotation.max_active" if rotation.max_active else ""
        raise RetryLaterError(
            f"the pool has no two generators to pair for domain {table.ladder.domain!r}{until}: "
            "add one to `generators`, or see their role, their domains and rotation.pairs"
        )
    match rotation.policy:
        case RotationPolicy.ROUND_ROBIN:
            return _round_robin(key, table.pairs)
        case RotationPolicy.WEIGHTED:
            return _weighted(key, table.pairs)
        case RotationPolicy.DELTA_TARGETING if rotation.explore is Explore.UCB:
            return _by_upper_confidence(table, rotation.target_delta)
        case RotationPolicy.DELTA_TARGETING:
            return _by_thompson(key, table, rotation.target_delta)


def _round_robin(key: PromptKey, pairs: Sequence[GeneratorPair]) -> GeneratorPair:
    """Deal evenly over the pairs in the long run.

    Counts differ by about the square root of the prompts per pair.
    """
    return pairs[_draw(key) % len(pairs)]


def _weighted(key: PromptKey, pairs: Sequence[GeneratorPair]) -> GeneratorPair:
    """Deal a pair as often as the product of its members' weights says; evenly if all are 0."""
    weights = [stronger.weight * weaker.weight for stronger, weaker in pairs]
    if (total := sum(weights)) <= 0:
        return _round_robin(key, pairs)
    place = _unit(key) * total
    for pair, upto in zip(pairs, accumulate(weights), strict=True):
        if place < upto:
            return pair
    return max(zip(weights, pairs, strict=True), key=lambda it: it[0])[1]  # rounding, at the end


def _by_thompson(key: PromptKey, table: Table, band: tuple[float, float]) -> GeneratorPair:
    """Deal a pair whose generator delta falls into the band, by Thompson sampling (1933).

    Capabilities are drawn together from what is believed of them, so that a pair of which little
    is known is tried in proportion to its chance of being right. Among pairs in the band the most
    capable generator of `chosen` comes first, and with it the largest delta: chosen is raised
    before rejected is lowered. Where no pair falls into the band, the nearest to it is dealt.
    """
    dealt = {member.reference for pair in table.pairs for member in pair}
    normals = {it: _STANDARD.inv_cdf(_unit(key, it)) for it in dealt}
    drawn = table.ladder.beliefs.drawn(normals)

    def preference(pair: GeneratorPair) -> tuple[float, float, float, str]:
        stronger, weaker = (drawn[member.reference] for member in pair)
        return (*_towards(band, stronger - weaker, stronger, 0.0), _name(pair))

    return max(table.pairs, key=preference)


def _by_upper_confidence(table: Table, band: tuple[float, float]) -> GeneratorPair:
    """Deal the pair whose delta may reach into the band, believing the best of what is unsure.

    As DeltaUCB (arXiv:2603.09692) does for responses: the bonus is what is not known of the pair's
    own delta. All prompts are dealt to one pair until the ladder or the active members change.
    """
    ratings = table.ladder.ratings

    def preference(pair: GeneratorPair) -> tuple[float, float, float, str]:
        stronger = ratings[pair[0].reference]
        delta = table.ladder.delta(*pair)
        bonus = _OPTIMISM * delta.stderr
        level = stronger.estimate + _OPTIMISM * stronger.stderr
        return (*_towards(band, delta.estimate, level, bonus), _name(pair))

    return max(table.pairs, key=preference)


def _towards(
    band: tuple[float, float], delta: float, level: float, bonus: float
) -> tuple[float, float, float]:
    """Return what is preferred: near to the band, give or take the bonus; then high; then wide."""
    outside = max(band[0] - delta - bonus, delta - bonus - band[1], 0.0)
    return (-outside, level, delta + bonus)


def _name(pair: GeneratorPair) -> str:
    return "/".join(member.reference for member in pair)


def _draw(key: PromptKey, *what: str) -> int:
    text = ":".join((key.prompt_id, str(key.round), *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _unit(key: PromptKey, *what: str) -> float:
    """Return a number between 0 and 1, and neither of the two."""
    return (_draw(key, *what) + 0.5) / 2**64
