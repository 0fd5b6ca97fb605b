"""Rotation: which generators a prompt is dealt to.

Rotation makes the generator-level delta (arXiv:2604.08723): the gap in capability between the
generator of `chosen` and that of `rejected`. What it decides is stored as the assignment, so a
policy only has to be deterministic given the prompt's id and the pool's state.
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate, combinations
from statistics import NormalDist

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import RotationPolicy, RotationSettings

__all__ = ["GeneratorPair", "deal", "generator_pairs"]

GeneratorPair = tuple[Generator, Generator]
"""The more capable generator first."""


def generator_pairs(
    pool: Pool, configured: Sequence[tuple[str, str]] | None
) -> list[GeneratorPair]:
    """Return the pairs to deal over, each with its more capable member first.

    Unset, these are every two of those that have not left the pool. Where pairs are configured,
    those whose members both stand, and every promoted member with each other member, for nobody
    could name it beforehand.
    """
    ranked = pool.standing()
    named = None if configured is None else {frozenset(pair) for pair in configured}
    return [
        (stronger, weaker)
        for stronger, weaker in combinations(ranked, 2)
        if named is None
        or {stronger.name, weaker.name} in named
        or not pool.promoted.isdisjoint((stronger.name, weaker.name))
    ]


def deal(
    key: PromptKey, pairs: Sequence[GeneratorPair], rotation: RotationSettings
) -> GeneratorPair:
    """Return the pair that a prompt is dealt to, the more capable generator first.

    The same prompt and the same members give the same pair, on whichever machine: whatever is
    drawn is drawn from the prompt's id, so that members of the group share no counter.

    Raises:
        RetryLaterError: the pool has no two generators to pair at the moment.
    """
    if not pairs:
        raise RetryLaterError("the pool has no two generators to pair: add one to `generators`")
    match rotation.policy:
        case RotationPolicy.ROUND_ROBIN:
            return _round_robin(key, pairs)
        case RotationPolicy.WEIGHTED:
            return _weighted(key, pairs)
        case RotationPolicy.DELTA_TARGETING:
            return _delta_targeting(key, pairs, rotation.target_delta)


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


def _delta_targeting(
    key: PromptKey, pairs: Sequence[GeneratorPair], band: tuple[float, float]
) -> GeneratorPair:
    """Deal a pair whose generator delta falls into the band, by Thompson sampling.

    Each member's capability is drawn from what is believed of it, so that a pair of which little
    is known is tried in proportion to its chance of being right (Thompson 1933; for deltas as in
    DeltaUCB, arXiv:2603.09692). Among pairs in the band the most capable generator of `chosen`
    comes first, and with it the largest delta: chosen is raised before rejected is lowered. Where
    no pair falls into the band, the nearest to it is dealt.
    """
    drawn = {
        member.reference: NormalDist(member.capability, member.capability_stderr).inv_cdf(
            _unit(key, member.reference)
        )
        if member.capability_stderr > 0
        else member.capability
        for pair in pairs
        for member in pair
    }

    def preference(pair: GeneratorPair) -> tuple[float, float, float, str]:
        stronger, weaker = (drawn[member.reference] for member in pair)
        delta = stronger - weaker
        outside = max(band[0] - delta, delta - band[1], 0.0)
        return (-outside, stronger, delta, "/".join(member.reference for member in pair))

    return max(pairs, key=preference)


def _draw(key: PromptKey, *what: str) -> int:
    text = ":".join((key.prompt_id, str(key.round), *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _unit(key: PromptKey, *what: str) -> float:
    """Return a number between 0 and 1, and neither of the two."""
    return (_draw(key, *what) + 0.5) / 2**64
