from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState, Trigger
from tests.records import T0, WHEEL, a_cycle, seconds


def test_requested_cycle_waits_with_all_its_steps_in_order() -> None:
    cycle = a_cycle()
    assert cycle.state is CycleState.REQUESTED
    assert [step.name for step in cycle.steps] == list(StepName)
    assert {step.state for step in cycle.steps} == {StepState.WAITING}


def test_same_cause_asks_for_the_same_cycle_whenever_it_does() -> None:
    assert a_cycle("at 3 o'clock", requested_at=seconds(9)).cycle_id == (
        a_cycle("at 3 o'clock").cycle_id
    )


def test_other_wheel_trigger_or_cause_asks_for_another_cycle() -> None:
    asked = [
        Cycle.request(wheel=wheel, trigger=trigger, cause=cause, at=T0)
        for wheel in (WHEEL, "other")
        for trigger in Trigger
        for cause in ("a", "b")
    ]
    assert len({cycle.cycle_id for cycle in asked}) == len(asked)


def test_step_is_found_by_its_name() -> None:
    cycle = a_cycle()
    assert all(cycle.step(name).name is name for name in StepName)
