"""The simulation bites: each way to break the guarantee fails within a few seeds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial

import pytest

from deltawheel.infra.simulated.seeded_random import SeededRandom
from deltawheel.infra.simulated.store import SimulatedStore
from deltawheel.ops.bench.simulate.plan import Fault, Plan
from deltawheel.ops.bench.simulate.run import WHEEL, Report, simulate
from deltawheel.ops.bench.simulate.wheel import Wrappers
from tests.ops.bench.simulate.mutations import (
    KeylessStore,
    LastWriterWins,
    eager_consumer,
    forgetful_consumer,
    late_acceptance,
    late_closings,
    late_consumer,
    late_producer,
    late_store,
    letterless_producer,
    unburying_store,
)

NUM_SEEDS = 25
"""Within so many seeds each mutation must be found; most are found in the first three."""

_STRANDING = {Fault.BROKER_FLAKY, Fault.BROKER_OUTAGE, Fault.BROKER_LOSS, Fault.REPLAY}
"""Faults after which only an event that is published again can heal what was stored alone."""


@dataclass(frozen=True)
class Mutation:
    """A broken wheel, and what the simulation says of it."""

    said: str
    wrappers: Wrappers = field(default_factory=Wrappers)
    make_store: Callable[[], SimulatedStore] | None = None


def keyless(table: str, *more: str) -> Mutation:
    make = cache(partial(KeylessStore, table, *more, wheel=WHEEL))
    return Mutation(f"more than one row in {table}", make_store=make)


MUTATIONS = {
    # The order is effect, publish, commit. These are the five others.
    "publish, effect, commit": Mutation(
        "gave up a valid record", Wrappers(store=late_store, consumer=late_consumer)
    ),
    "publish, commit, effect": Mutation("prompts are lost", Wrappers(store=late_store)),
    "effect, commit, publish": Mutation("prompts are lost", Wrappers(producer=late_producer)),
    "commit, effect, publish": Mutation("prompts are lost", Wrappers(consumer=eager_consumer)),
    "commit, publish, effect": Mutation(
        "prompts are lost", Wrappers(store=late_store, consumer=eager_consumer)
    ),
    "publish, commit, closing": Mutation("prompts are lost", Wrappers(store=late_closings)),
    "answer, acceptance": Mutation(
        "was answered with 202 and is not in the store", Wrappers(store=late_acceptance)
    ),
    "commits are forgotten": Mutation(
        "not everything is committed", Wrappers(consumer=forgetful_consumer)
    ),
    "only monitoring's letters are stored": Mutation(
        "has become no dead letter of", Wrappers(store=unburying_store)
    ),
    "letters are not published": Mutation(
        "was never published", Wrappers(producer=letterless_producer)
    ),
    "a zombie replaces what the first writer stored": Mutation(
        "was published with 2 different payloads",
        make_store=cache(partial(LastWriterWins, wheel=WHEEL)),
    ),
    "traces have no key": keyless("traces"),
    "judgements have no key": keyless("judgements"),
    "slot ends have no key": keyless("slot_ends"),
    "closings have no key": keyless("closings"),
    # A group that is closed gets no pair: the closing's key would shield the pair's.
    "pairs have no key": keyless("pairs", "closings"),
    "dead letters have no key": keyless("dead_letters"),
}


def a_plan(seed: int) -> Plan:
    """Draw a plan in which processes die and linger, and redelivery alone can heal it."""
    drawn = Plan.of(SeededRandom(f"mutation {seed}"))
    faults = (drawn.faults | {Fault.CRASH, Fault.ZOMBIE, Fault.REBALANCE}) - _STRANDING
    return replace(drawn, faults=faults, crash_share=0.03, is_healing=False, patience_s=400.0)


def play(seed: int, mutation: Mutation) -> Report:
    return simulate(
        seed, plan=a_plan(seed), wrappers=mutation.wrappers, make_store=mutation.make_store
    )


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_wheel_is_found_out(name: str) -> None:
    mutation = MUTATIONS[name]
    for seed in range(NUM_SEEDS):
        if any(mutation.said in violation for violation in play(seed, mutation).violations):
            return
    pytest.fail(f"{NUM_SEEDS} seeds, and nobody noticed: {name}")


@pytest.mark.parametrize(
    "seeds",
    [
        range(8),
        pytest.param(range(8, 200), marks=[pytest.mark.integration, pytest.mark.timeout(900)]),
    ],
    ids=["some", "many"],
)
def test_the_same_seeds_are_clean_without_a_mutation(seeds: range) -> None:
    for seed in seeds:
        report = play(seed, Mutation("nothing"))
        assert report.is_clean, (seed, report.violations)


def test_a_late_commit_alone_costs_nothing_but_redeliveries() -> None:
    for seed in range(5):
        report = play(seed, Mutation("nothing", Wrappers(consumer=late_consumer)))
        # A late commit may set a group back, which commits again only once something comes.
        costs = [it for it in report.violations if "not everything is committed" not in it]
        assert not costs, (seed, costs)
