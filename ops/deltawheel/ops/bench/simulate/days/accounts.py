"""What must be true of cycles and promotions after many days."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import PoolEventKind
from deltawheel.ops.bench.simulate.days.registry import SimulatedRegistry
from deltawheel.ops.bench.simulate.wheel import SimulatedWheel

__all__ = ["cycle_violations"]

_ALL = 100_000
_GAVE_UP = "gave up at attempt"
_BY_HAND = "the alias was moved by hand"


def cycle_violations(wheel: SimulatedWheel, registry: SimulatedRegistry) -> Iterator[str]:
    """Yield what is wrong, in sentences."""
    cycles = wheel.store.cycles(_ALL)
    for cycle in cycles:
        yield from _of_cycle(wheel, registry, cycle)
    yield from _overlaps(cycles)
    yield from _promotions(wheel, registry, cycles)
    yield from _moves(wheel, registry, cycles)


def _of_cycle(wheel: SimulatedWheel, registry: SimulatedRegistry, cycle: Cycle) -> Iterator[str]:
    name = cycle.cycle_id[-8:]
    if cycle.state not in {CycleState.ENDED, CycleState.FAILED}:
        yield f"cycle {name} is still {cycle.state.value}"
        return
    if cycle.state is CycleState.FAILED and not _may_fail(registry, cycle.error or ""):
        yield f"cycle {name} failed, and not by what may fail one: {cycle.error}"
    if cycle.state is CycleState.ENDED:
        verdict = wheel.nature.verdict(cycle.cycle_id)
        if cycle.verdict is not verdict:
            yield f"cycle {name} ended {cycle.verdict}, but its gate said {verdict.value}"
        open_steps = [
            step.name.value
            for step in cycle.steps
            if step.state not in {StepState.DONE, StepState.SKIPPED}
        ]
        if open_steps:
            yield f"cycle {name} has ended, but not its steps {open_steps}"


def _may_fail(registry: SimulatedRegistry, error: str) -> bool:
    """Only a step that crashed each time, and an operator who came in between, end a cycle."""
    return _GAVE_UP in error or (_BY_HAND in error and registry.num_rollbacks > 0)


def _overlaps(cycles: list[Cycle]) -> Iterator[str]:
    """One cycle at a time: the next begins its work after the one before has ended."""
    ordered = sorted(cycles, key=lambda cycle: cycle.requested_at)
    for earlier, later in pairwise(ordered):
        began_at = later.step(StepName.SELECT).started_at
        if began_at is not None and earlier.ended_at is not None and began_at < earlier.ended_at:
            yield f"cycle {later.cycle_id[-8:]} began before {earlier.cycle_id[-8:]} had ended"


def _promotions(
    wheel: SimulatedWheel, registry: SimulatedRegistry, cycles: list[Cycle]
) -> Iterator[str]:
    promoted = Counter(row.cycle_id for row in wheel.store.promotions())
    joined = Counter(
        event.cause for event in wheel.store.pool_log() if event.kind is PoolEventKind.PROMOTED
    )
    decided = {row.cycle_id: row.promotion_id for row in wheel.store.promotions()}
    for cycle in cycles:
        if cycle.state is not CycleState.ENDED or cycle.verdict is not Verdict.PROMOTE:
            continue
        name = cycle.cycle_id[-8:]
        if promoted[cycle.cycle_id] != 1:
            yield f"cycle {name} was promoted with {promoted[cycle.cycle_id]} decision rows"
        elif joined[decided[cycle.cycle_id]] != 1:
            yield f"cycle {name}'s model joined the pool {joined[decided[cycle.cycle_id]]} times"
        if cycle.cycle_id not in registry.versions:
            yield f"cycle {name} was promoted, but the registry has no version of it"
    for cause in joined.keys() - decided.values():
        yield f"a generator joined the pool by {cause[-8:]}, which nobody decided"


def _moves(
    wheel: SimulatedWheel, registry: SimulatedRegistry, cycles: list[Cycle]
) -> Iterator[str]:
    """Only promotions and hands move the alias, so the champion is the last one's or the hand's."""
    ended = {cycle.cycle_id for cycle in cycles if cycle.state is CycleState.ENDED}
    rows = wheel.store.promotions()
    moved = list(dict.fromkeys(it.version for it in registry.moves if not it.is_by_hand))
    for version in set(moved) - {row.version for row in rows}:
        yield f"the alias was moved to version {version}, which nobody decided"
    wanted = [row.version for row in rows if row.cycle_id in ended]
    if (found := [version for version in moved if version in wanted]) != wanted:
        yield f"versions {wanted} were promoted, but the alias was moved to {found}"
