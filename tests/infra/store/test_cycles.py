"""The pool's log, cycles with their fenced steps, and leases."""

import asyncio

from deltawheel.contracts.cycle import CycleState, StepName, StepState
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import PoolEventKind
from deltawheel.contracts.store import Store
from tests.infra.store.stored import LATER, in_threads
from tests.records import (
    T0,
    a_cycle,
    a_generator,
    a_pool_event,
    a_prompt,
    seconds,
)


def test_pool_log_keeps_order_and_ignores_repeats(store: Store) -> None:
    weak, strong = (a_pool_event(a_generator(name)) for name in ("weak", "strong"))
    drained = a_pool_event(a_generator("weak"), kind=PoolEventKind.DRAINED)
    store.add_pool_events([weak, strong])
    store.add_pool_events([weak, drained, strong])
    assert store.pool_log() == [weak, strong, drained]


def test_cycle_that_many_ask_for_is_one(store: Store) -> None:
    asked = in_threads(4, lambda number: store.add_cycle(a_cycle(requested_at=seconds(number))))
    assert [asked[0]] * 4 == asked
    assert store.cycles(10) == [asked[0]]


def test_first_cycle_is_kept_with_all_its_steps(store: Store) -> None:
    cycle = a_cycle()
    assert store.add_cycle(cycle) == cycle
    assert store.add_cycle(a_cycle(requested_at=seconds(9))) == cycle
    assert store.cycle(cycle.cycle_id) == cycle


def test_cycles_are_listed_newest_first_and_open_ones_oldest_first(store: Store) -> None:
    first, second, third = (
        store.add_cycle(a_cycle(str(number), requested_at=seconds(number))) for number in range(3)
    )
    store.end_cycle(second.cycle_id, state=CycleState.FAILED, at=LATER, error="no pairs")
    assert [cycle.cycle_id for cycle in store.cycles(2)] == [third.cycle_id, second.cycle_id]
    assert store.open_cycles() == [first, third]


def test_cycle_ends_once(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    store.end_cycle(cycle_id, state=CycleState.RUNNING, at=seconds(1))
    running = store.cycle(cycle_id)
    assert running is not None
    assert (running.state, running.ended_at) == (CycleState.RUNNING, None)
    store.end_cycle(cycle_id, state=CycleState.ENDED, at=seconds(2), verdict=Verdict.REJECT)
    store.end_cycle(cycle_id, state=CycleState.FAILED, at=seconds(3), error="late")
    ended = store.cycle(cycle_id)
    assert ended is not None
    assert (ended.state, ended.ended_at) == (CycleState.ENDED, seconds(2))
    assert (ended.verdict, ended.error) == (Verdict.REJECT, None)


def test_step_has_one_holder_until_its_lease_runs_out(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id

    def begin(token: str, at: float) -> int | None:
        step = store.begin_step(
            cycle_id, StepName.TRAIN, token=token, at=seconds(at), lease_until=seconds(at + 10)
        )
        return None if step is None else step.attempt

    assert begin("a", 0) == 1
    assert begin("b", 5) is None
    assert store.renew_step(cycle_id, StepName.TRAIN, token="a", until=seconds(20))
    assert begin("b", 15) is None
    assert begin("b", 21) == 2
    assert not store.renew_step(cycle_id, StepName.TRAIN, token="a", until=seconds(99))
    done = {"state": StepState.DONE, "at": seconds(22), "result": {"loss": 0.5, "files": ["a"]}}
    assert not store.finish_step(cycle_id, StepName.TRAIN, token="a", **done)  # type: ignore[arg-type]
    assert store.finish_step(cycle_id, StepName.TRAIN, token="b", **done)  # type: ignore[arg-type]
    assert store.finish_step(cycle_id, StepName.TRAIN, token="b", **done)  # type: ignore[arg-type]
    cycle = store.cycle(cycle_id)
    assert cycle is not None
    step = cycle.step(StepName.TRAIN)
    assert (step.state, step.attempt, step.lease_until) == (StepState.DONE, 2, None)
    assert (step.started_at, step.ended_at) == (seconds(21), seconds(22))
    assert step.result == done["result"]
    assert begin("c", 99) is None


def test_waiting_step_is_begun_again_and_tells_its_last_error(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    step = (cycle_id, StepName.SELECT)
    store.begin_step(*step, token="a", at=T0, lease_until=LATER)
    assert store.finish_step(
        *step, token="a", state=StepState.WAITING, at=seconds(1), error="vLLM is away"
    )
    again = store.begin_step(*step, token="b", at=seconds(2), lease_until=LATER)
    assert again is not None
    assert (again.attempt, again.token, again.error) == (2, "b", "vLLM is away")
    assert not store.renew_step(*step, token="a", until=LATER)


def test_attempt_that_is_not_counted_leaves_the_count_as_it_was(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    step = (cycle_id, StepName.SELECT)
    for token in ("a", "b"):
        begun = store.begin_step(*step, token=token, at=T0, lease_until=LATER)
        assert begun is not None
        assert begun.attempt == 1
        for _ in range(2):
            assert store.finish_step(
                *step, token=token, state=StepState.WAITING, at=T0, is_counted=False
            )


def test_failed_step_is_not_begun_nor_any_of_a_cycle_that_is_over(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    first = (cycle_id, StepName.SELECT)
    store.begin_step(*first, token="a", at=T0, lease_until=LATER)
    store.finish_step(*first, token="a", state=StepState.FAILED, at=T0, error="too few pairs")
    assert store.begin_step(*first, token="b", at=T0, lease_until=LATER) is None
    store.end_cycle(cycle_id, state=CycleState.FAILED, at=T0, error="too few pairs")
    second = (cycle_id, StepName.TRAIN)
    assert store.begin_step(*second, token="b", at=T0, lease_until=LATER) is None


def test_skipped_step_is_not_begun(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    step = (cycle_id, StepName.ADOPT)
    store.begin_step(*step, token="a", at=T0, lease_until=LATER)
    assert store.finish_step(*step, token="a", state=StepState.SKIPPED, at=seconds(1))
    assert store.begin_step(*step, token="a", at=seconds(2), lease_until=LATER) is None


def test_of_many_runners_one_begins_the_step(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    steps = in_threads(
        6,
        lambda index: store.begin_step(
            cycle_id, StepName.TRAIN, token=str(index), at=T0, lease_until=LATER
        ),
    )
    assert len([step for step in steps if step is not None]) == 1


def test_lease_has_one_holder_until_released_or_run_out(store: Store) -> None:
    assert not store.is_leased("pause", at=T0)
    assert store.acquire_lease("pause", token="a", at=T0, until=seconds(10))
    assert store.is_leased("pause", at=seconds(10))
    assert not store.acquire_lease("pause", token="b", at=seconds(10), until=LATER)
    assert store.acquire_lease("pause", token="a", at=seconds(5), until=seconds(20))
    store.release_lease("pause", token="b")
    assert store.is_leased("pause", at=seconds(15))
    assert not store.is_leased("pause", at=seconds(21))
    assert store.acquire_lease("pause", token="b", at=seconds(21), until=seconds(30))
    store.release_lease("pause", token="b")
    assert not store.is_leased("pause", at=seconds(22))


def test_of_many_one_gets_the_lease(store: Store) -> None:
    got = in_threads(
        6, lambda index: store.acquire_lease("x", token=str(index), at=T0, until=LATER)
    )
    assert sum(got) == 1


async def test_store_is_used_from_the_event_loops_threads(store: Store) -> None:
    prompts = [a_prompt(f"{number}+1=") for number in range(40)]
    await asyncio.gather(*(asyncio.to_thread(store.add_prompts, [prompt]) for prompt in prompts))
    groups = await asyncio.gather(*(asyncio.to_thread(store.group, p.key) for p in prompts))
    assert all(group is not None for group in groups)
