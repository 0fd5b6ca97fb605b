"""Many days: nightly cycles, promotions, rollbacks by hand, drift, a restart and an outage each."""

from collections.abc import Iterator

import pytest

from deltawheel.contracts.cycle import Cycle, Trigger
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.infra import wiring
from deltawheel.ops.bench.simulate.days.accounts import cycle_violations
from deltawheel.ops.bench.simulate.days.registry import SimulatedRegistry
from deltawheel.ops.bench.simulate.days.run import simulate_days
from deltawheel.ops.bench.simulate.plan import Plan
from deltawheel.ops.bench.simulate.run import begin_world, settings_of
from deltawheel.ops.bench.simulate.wheel import BEGAN_AT, SimulatedWheel


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
@pytest.mark.parametrize("seed", range(4))
def test_ten_days_lose_nothing_and_end_every_cycle_once(seed: int) -> None:
    report = simulate_days(seed, days=10)
    again = f"see it again: deltawheel bench simulate --workload days --days 10 --seed {seed}"
    assert report.is_clean, "\n".join((*report.violations, again))
    assert report.num_cycles >= 8


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
