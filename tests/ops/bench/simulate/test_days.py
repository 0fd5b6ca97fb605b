"""Many days: nightly cycles, promotions, rollbacks by hand, drift, a restart and an outage each."""

from collections.abc import Iterator

import pytest

from deltawheel.contracts.cycle import Cycle, CycleState, Trigger
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.infra import wiring
from deltawheel.ops.bench.simulate.days.accounts import cycle_violations
from deltawheel.ops.bench.simulate.days.registry import SimulatedRegistry
from deltawheel.ops.bench.simulate.days.run import simulate_days, unsettled
from deltawheel.ops.bench.simulate.plan import Plan
from deltawheel.ops.bench.simulate.run import begin_world, settings_of
from deltawheel.ops.bench.simulate.wheel import BEGAN_AT, SimulatedWheel
from tests.records import a_promotion


def test_a_day_comes_to_its_end() -> None:
    days: list[int] = []
    report = simulate_days(3, days=1, at_day=days.append)
    assert report.is_clean, report.violations
    assert (days, report.num_cycles > 0, report.virtual_s > 86_400) == ([1], True, True)


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_the_same_days_come_again() -> None:
    assert simulate_days(4, days=1).digest == simulate_days(4, days=1).digest


@pytest.mark.integration
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_ten_days_lose_nothing_and_end_every_cycle_once(seed: int) -> None:
    report = simulate_days(seed, days=10)
    again = f"see it again: deltawheel bench simulate --workload days --days 10 --seed {seed}"
    assert report.is_clean, "\n".join((*report.violations, again))
    assert report.num_cycles >= 8
    assert min(report.num_promotions, report.num_rollbacks, report.num_deaths) > 0


@pytest.fixture
def wheel() -> Iterator[SimulatedWheel]:
    plan = Plan.calm()
    wheel = begin_world(wiring.seeded_random(0), plan=plan, settings=settings_of(plan))
    yield wheel
    wheel.aio.close()


def test_a_cycle_that_never_ends_is_named(wheel: SimulatedWheel) -> None:
    wheel.store.add_cycle(a_cycle(wheel))
    [said] = cycle_violations(wheel, SimulatedRegistry())
    assert "is still requested" in said


def test_a_wheel_that_does_not_settle_is_named(wheel: SimulatedWheel) -> None:
    assert wheel.aio.run_until_complete(unsettled(wheel)) == []
    wheel.store.add_cycle(a_cycle(wheel))
    [said] = wheel.aio.run_until_complete(unsettled(wheel))
    assert "has not settled within 14400 s" in said


@pytest.mark.parametrize(
    ("error", "num_rollbacks", "num_violations"),
    [
        ("the disk is full", 1, 1),
        ("step register: the alias was moved by hand to 2", 0, 1),
        ("step register: the alias was moved by hand to 2", 1, 0),
        ("step train gave up at attempt 6: its process was killed each time", 0, 0),
    ],
)
def test_only_an_operator_and_crashes_may_fail_a_cycle(
    wheel: SimulatedWheel, error: str, num_rollbacks: int, num_violations: int
) -> None:
    cycle, registry = a_cycle(wheel), SimulatedRegistry()
    wheel.store.add_cycle(cycle)
    wheel.store.end_cycle(cycle.cycle_id, state=CycleState.FAILED, at=BEGAN_AT, error=error)
    for _ in range(num_rollbacks):
        registry.move_by_hand(None)
    assert len(list(cycle_violations(wheel, registry))) == num_violations


def test_an_alias_that_nobody_decided_to_move_is_named(wheel: SimulatedWheel) -> None:
    registry = SimulatedRegistry()
    registry.move_by_hand("7")
    assert list(cycle_violations(wheel, registry)) == []
    registry.move_champion("8", replaces="7")
    [said] = cycle_violations(wheel, registry)
    assert "moved to version 8, which nobody decided" in said


def test_a_promotion_that_moved_no_alias_is_named(wheel: SimulatedWheel) -> None:
    cycle = a_cycle(wheel)
    wheel.store.add_cycle(cycle)
    wheel.store.add_promotion(a_promotion(cycle))
    wheel.store.end_cycle(
        cycle.cycle_id, state=CycleState.ENDED, at=BEGAN_AT, verdict=Verdict.PROMOTE
    )
    said = list(cycle_violations(wheel, SimulatedRegistry()))
    assert "versions ['1'] were promoted, but the alias was moved to []" in said


def test_a_generator_that_nobody_promoted_is_named(wheel: SimulatedWheel) -> None:
    stray = Generator(name="stray", revision="r", endpoint="server:x", model="m", capability=0)
    event = PoolEvent(
        kind=PoolEventKind.PROMOTED, generator=stray, reason="", at=BEGAN_AT, cause="nobody"
    )
    wheel.store.add_pool_events([event])
    [said] = cycle_violations(wheel, SimulatedRegistry())
    assert "nobody decided" in said


def test_an_alias_moved_by_hand_is_left_where_it_is() -> None:
    registry = SimulatedRegistry()
    registry.move_champion(registry.add_version("one"), replaces=None)
    registry.move_by_hand(None)
    with pytest.raises(CycleError, match="moved by hand"):
        registry.move_champion(registry.add_version("two"), replaces="1")
    assert registry.champion is None


def a_cycle(wheel: SimulatedWheel) -> Cycle:
    return Cycle.request(
        wheel=wheel.settings.wheel, trigger=Trigger.OPERATOR, cause="test", at=BEGAN_AT
    )
