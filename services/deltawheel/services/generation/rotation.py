"""Rotation: which generators a prompt is dealt to.

Rotation makes the generator-level delta (arXiv:2604.08723): the gap in capability between the
generator of `chosen` and that of `rejected`. What it decides is stored as the assignment, so a
policy only has to be deterministic given the prompt's id and the pool's state.
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey

__all__ = ["GeneratorPair", "generator_pairs", "round_robin"]

GeneratorPair = tuple[Generator, Generator]
"""The more capable generator first."""


def generator_pairs(
    pool: Pool, configured: Sequence[tuple[str, str]] | None
) -> list[GeneratorPair]:
    """Return the pairs to deal over, each with its more capable member first.

    Unset, these are every two of the pool. Where pairs are configured, those whose members both
    stand, and every promoted member with each other member, for nobody could name it beforehand.
    """
    ranked = pool.ranked()
    named = None if configured is None else {frozenset(pair) for pair in configured}
    return [
        (stronger, weaker)
        for stronger, weaker in combinations(ranked, 2)
        if named is None
        or {stronger.name, weaker.name} in named
        or not pool.promoted.isdisjoint((stronger.name, weaker.name))
    ]


def round_robin(key: PromptKey, pairs: Sequence[GeneratorPair]) -> GeneratorPair:
    """Deal prompts evenly over the pairs, in an order that hangs on the prompt's id alone.

    Evenly in the long run: dealing by hash needs no counter that members would have to share, at
    the price of counts that differ by about the square root of the prompts per pair.

    Raises:
        RetryLaterError: the pool has no two generators to pair at the moment.
    """
    if not pairs:
        raise RetryLaterError("the pool has no two generators to pair: add one to `generators`")
    dealt = hashlib.sha256(f"{key.prompt_id}:{key.round}".encode()).digest()
    return pairs[int.from_bytes(dealt[:8]) % len(pairs)]
