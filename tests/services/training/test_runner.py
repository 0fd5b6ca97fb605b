"""The runner over a real store: the order of the steps, their leases, and how a cycle ends."""

import errno
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import PoolEventKind
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.infra.store.store import SqlStore
from tests.records import WHEEL, a_cycle, a_pool_event, a_promotion, seconds
from tests.services.training.benches import Bench

STAGES = [name for name in StepName if name is not StepName.ADOPT]
TRY_LATER, KILLED = 75, 137


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    """A bench on which each candidate is promoted, and generation has it in the pool at once."""
    promotion = store.add_promotion(a_promotion(a_cycle()))
    store.add_pool_events(
        [
            a_pool_event(
                promotion.generator, kind=PoolEventKind.PROMOTED, cause=promotion.promotion_id
            )
        ]
    )
    return Bench(store, tmp_path)


def step_states(cycle: Cycle) -> dict[StepName, StepState]:
    return {step.name: step.state for step in cycle.steps}


# order and end


def test_steps_run_in_order_and_the_cycle_ends_with_its_verdict(bench: Bench) -> None:
    cycle = bench.run(a_cycle())
    assert bench.stages.names == STAGES
    assert step_states(cycle) == dict.fromkeys(StepName, StepState.DONE)
    assert (cycle.state, cycle.verdict, cycle.error) == (CycleState.ENDED, Verdict.PROMOTE, None)
    assert cycle.ended_at is not None
    assert cycle.step(StepName.ADOPT).result["generator"] == "champion-1"


def test_cycle_is_running_while_its_steps_run(bench: Bench) -> None:
    states: set[CycleState] = set()
    bench.stages.while_running = lambda _: states.add(bench.stored(a_cycle()).state)
    bench.run(a_cycle())
    assert states == {CycleState.RUNNING}


def test_stage_is_told_what_to_do_and_under_which_token(bench: Bench, tmp_path: Path) -> None:
    tokens: list[str | None] = []
    bench.stages.while_running = lambda name: tokens.append(
        bench.stored(a_cycle()).step(name).token
    )
    bench.stages.num_looks = 1
    bench.run(a_cycle())
    for name, token, argv in zip(STAGES, tokens, bench.stages.argvs, strict=True):
        assert argv[1:4] == ["-P", "-m", "deltawheel.pipelines"]
        assert dict(zip(argv[4::2], argv[5::2], strict=True)) == {
            "--settings": str(tmp_path / "settings.yaml"),
            "--cycle": a_cycle().cycle_id,
            "--step": name.value,
            "--token": token,
        }
    assert len(set(tokens)) == len(STAGES)


def test_result_of_a_stage_becomes_the_result_of_its_step(bench: Bench) -> None:
    bench.stages.results[StepName.TRAIN] = {"loss": 0.5}
    cycle = bench.run(a_cycle())
    assert cycle.step(StepName.TRAIN).result == {"loss": 0.5}
    assert cycle.step(StepName.SELECT).result == {}


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.INCONCLUSIVE])
def test_refused_candidate_is_not_adopted_and_is_no_failure(
    store: Store, tmp_path: Path, verdict: Verdict
) -> None:
    bench = Bench(store, tmp_path, verdict=verdict.value)
    cycle = bench.run(a_cycle())
    assert (cycle.state, cycle.verdict, cycle.error) == (CycleState.ENDED, verdict, None)
    adoption = cycle.step(StepName.ADOPT)
    assert adoption.state is StepState.SKIPPED
    assert adoption.result == {"reason": f"the verdict is {verdict.value}"}
    assert bench.producer.published == []


def test_open_cycles_run_one_after_the_other_the_oldest_first(store: Store, tmp_path: Path) -> None:
    bench = Bench(store, tmp_path, verdict="reject")
    older, newer = a_cycle("older"), a_cycle("newer", requested_at=seconds(1))
    store.add_cycle(newer)
    bench.run(older)
    order = [argv[argv.index("--cycle") + 1] for argv in bench.stages.argvs]
    assert order == [older.cycle_id] * len(STAGES) + [newer.cycle_id] * len(STAGES)


# failures


@pytest.mark.parametrize("status", [1, 2])
def test_stage_that_will_never_work_fails_the_cycle_with_step_and_reason(
    bench: Bench, status: int
) -> None:
    bench.stages.statuses[StepName.TRAIN] = [status]
    bench.stages.said = "reading pairs\nonly 3 pairs, but training.min_pairs is 50\n"
    cycle = bench.run(a_cycle())
    assert (cycle.state, cycle.verdict) == (CycleState.FAILED, None)
    reason = "only 3 pairs, but training.min_pairs is 50 (log: "
    assert cycle.error is not None
    assert cycle.error.startswith(f"step train: {reason}")
    assert cycle.error.endswith("train.log)")
    step = cycle.step(StepName.TRAIN)
    assert step.state is StepState.FAILED
    assert (step.error or "").startswith(reason)
    assert cycle.step(StepName.EVALUATE).state is StepState.WAITING
    assert bench.stages.names == [StepName.SELECT, StepName.TRAIN]


def test_promoted_cycle_without_a_decision_row_fails_at_adoption(
    store: Store, tmp_path: Path
) -> None:
    cycle = Bench(store, tmp_path).run(a_cycle())
    assert cycle.state is CycleState.FAILED
    assert (cycle.error or "").startswith("step adopt: the cycle was promoted, but")


@pytest.mark.parametrize(("status", "num_counted"), [(TRY_LATER, 1), (KILLED, 3)])
def test_attempt_that_may_yet_succeed_is_made_again_and_a_crash_is_counted(
    bench: Bench, status: int, num_counted: int
) -> None:
    bench.stages.statuses[StepName.EVALUATE] = [status, status]
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.ENDED
    assert cycle.step(StepName.EVALUATE).attempt == num_counted
    assert cycle.step(StepName.EVALUATE).error is None
    assert cycle.step(StepName.TRAIN).attempt == 1
    assert bench.stages.counts[StepName.EVALUATE] == 3
    tokens = [argv[-1] for argv in bench.stages.argvs]
    assert len(set(tokens)) == len(tokens)


def test_step_waits_with_its_reason_between_two_attempts(bench: Bench) -> None:
    bench.stages.statuses[StepName.EVALUATE] = [TRY_LATER]
    bench.stages.said = "server local does not answer"
    seen: list[tuple[StepState, str | None]] = []

    def look() -> None:
        step = bench.stored(a_cycle()).step(StepName.EVALUATE)
        if step.state is StepState.WAITING and step.error:
            seen.append((step.state, step.error))
        stop_when_idle()

    stop_when_idle, bench.clock.at_wait = bench.clock.at_wait, look
    bench.run(a_cycle())
    (_, error), *_ = seen
    assert (error or "").startswith("its process ended with status 75: server local does not")


def test_step_gives_up_after_the_attempts_that_the_settings_allow(
    store: Store, tmp_path: Path
) -> None:
    bench = Bench(store, tmp_path, max_step_attempts=3)
    bench.stages.statuses[StepName.EVALUATE] = [KILLED] * 10
    cycle = bench.run(a_cycle())
    assert bench.stages.counts[StepName.EVALUATE] == 3
    assert cycle.state is CycleState.FAILED
    assert "step evaluate gave up" in (cycle.error or "")
    assert "its process ended with status 137: it said nothing" in (cycle.error or "")
    step = cycle.step(StepName.EVALUATE)
    assert step.state is StepState.FAILED
    assert "status 137" in (step.error or "")


def test_step_whose_runner_died_each_time_gives_up_too(store: Store, tmp_path: Path) -> None:
    bench = Bench(store, tmp_path, max_step_attempts=2)
    cycle = store.add_cycle(a_cycle())
    for number in range(2):
        store.begin_step(
            cycle.cycle_id,
            StepName.SELECT,
            token=f"dead {number}",
            at=seconds(-10 + number),
            lease_until=seconds(-10 + number),
        )
        bench.clock.past_s = number
    ended = bench.run(cycle)
    assert bench.stages.begun == []
    assert "its process was killed each time" in (ended.error or "")


def test_stage_that_takes_too_long_is_killed_and_fails_the_cycle(
    store: Store, tmp_path: Path
) -> None:
    bench = Bench(store, tmp_path, step_timeout_s=2)
    bench.stages.num_looks = 1_000
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.FAILED
    assert "select took longer than training.step_timeout_s (2 s)" in (cycle.error or "")
    [stage] = bench.stages.begun
    assert stage.was_killed
    assert bench.clock.past_s == pytest.approx(2, abs=1)


def test_cycle_goes_on_when_a_busy_store_answers_again(tmp_path: Path) -> None:
    class BusyStore(SqlStore):
        num_failures = 0

        def open_cycles(self) -> list[Cycle]:
            if self.num_failures:
                self.num_failures -= 1
                raise RetryLaterError("the store is busy")
            return super().open_cycles()

    store = BusyStore(f"sqlite:///{tmp_path / 'busy.db'}", wheel=WHEEL)
    bench = Bench(store, tmp_path, verdict="reject")
    store.add_cycle(a_cycle())

    def stop_at_its_end() -> None:
        if bench.stored(a_cycle()).ended_at:
            bench.runner.stop.set()

    bench.clock.at_wait = stop_at_its_end
    store.num_failures = 3
    assert bench.run(a_cycle()).state is CycleState.ENDED
    assert store.num_failures == 0
    store.close()


# leases


def test_step_that_another_holds_is_waited_for(bench: Bench) -> None:
    cycle = bench.store.add_cycle(a_cycle())
    bench.store.begin_step(
        cycle.cycle_id, StepName.SELECT, token="other", at=seconds(0), lease_until=seconds(8)
    )
    began_at: list[float] = []
    bench.stages.while_running = lambda _: began_at.append(bench.clock.past_s)
    ended = bench.run(cycle)
    assert ended.state is CycleState.ENDED
    assert ended.step(StepName.SELECT).attempt == 2
    assert 8 < began_at[0] < 9


def test_step_that_another_has_finished_meanwhile_is_not_run(bench: Bench) -> None:
    cycle = bench.store.add_cycle(a_cycle())
    bench.store.begin_step(
        cycle.cycle_id, StepName.SELECT, token="other", at=seconds(0), lease_until=seconds(99)
    )

    def finish() -> None:
        if bench.clock.past_s >= 1:
            bench.store.finish_step(
                cycle.cycle_id,
                StepName.SELECT,
                token="other",
                state=StepState.DONE,
                at=seconds(1),
                result={"by": "other"},
            )
        stop_when_idle()

    stop_when_idle, bench.clock.at_wait = bench.clock.at_wait, finish
    ended = bench.run(cycle)
    assert ended.step(StepName.SELECT).result == {"by": "other"}
    assert bench.stages.names == STAGES[1:]


def test_attempt_whose_lease_was_taken_over_is_killed_and_writes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def take_over(name: StepName) -> None:
        if name is StepName.TRAIN and bench.stages.counts[name] == 1:
            bench.clock.past_s += 11
            now = bench.clock.past_s
            bench.store.begin_step(
                a_cycle().cycle_id,
                name,
                token="other",
                at=seconds(now),
                lease_until=seconds(now + 5),
            )
            holders.append(bench.stored(a_cycle()).step(name).token)

    holders: list[str | None] = []
    bench.stages.while_running = take_over
    ended = bench.run(a_cycle())
    assert holders == ["other"]
    assert "step train of" in caplog.text
    assert "was taken over meanwhile" in caplog.text
    assert all(stage.was_killed for stage in bench.stages.begun)
    assert ended.state is CycleState.ENDED
    assert ended.step(StepName.TRAIN).attempt == 3
    assert bench.stages.counts[StepName.TRAIN] == 2


def test_lease_of_a_long_step_is_prolonged(bench: Bench) -> None:
    bench.stages.num_looks = 100
    ends: list[float] = []

    def look(name: StepName) -> None:
        until = bench.stored(a_cycle()).step(name).lease_until
        assert until is not None
        ends.append((until - bench.clock.now()).total_seconds())

    bench.stages.while_running = look
    assert bench.run(a_cycle()).state is CycleState.ENDED
    assert bench.clock.past_s > 60
    assert min(ends) > 9


def test_generation_is_paused_while_a_cycle_trains_and_evaluates_only(bench: Bench) -> None:
    paused: dict[StepName, list[bool]] = {name: [] for name in STAGES}
    bench.stages.while_running = lambda name: paused[name].append(
        bench.store.is_leased(PAUSE_LEASE, at=bench.clock.now())
    )
    bench.run(a_cycle())
    # The first look comes before the runner's first turn, and the lease is taken in that.
    assert {name for name, looks in paused.items() if looks[-1]} == {
        StepName.TRAIN,
        StepName.EVALUATE,
    }
    assert not any(paused[StepName.GATE])
    assert not bench.store.is_leased(PAUSE_LEASE, at=bench.clock.now())


def test_generation_goes_on_where_the_settings_say_so(store: Store, tmp_path: Path) -> None:
    bench = Bench(store, tmp_path, verdict="reject", pause_generation=False)
    paused: list[bool] = []
    bench.stages.while_running = lambda _: paused.append(
        store.is_leased(PAUSE_LEASE, at=bench.clock.now())
    )
    bench.run(a_cycle())
    assert set(paused) == {False}


@pytest.mark.parametrize("statuses", [[1], [TRY_LATER, 1]])
def test_pause_of_generation_ends_with_a_failed_step(bench: Bench, statuses: list[int]) -> None:
    bench.stages.statuses[StepName.TRAIN] = list(statuses)
    assert bench.run(a_cycle()).state is CycleState.FAILED
    assert not bench.store.is_leased(PAUSE_LEASE, at=bench.clock.now())


# stopping and resuming


def stop_in(bench: Bench, name: StepName) -> None:
    """Ask the runner to stop while a stage runs."""

    def stop(running: StepName) -> None:
        if running is name:
            bench.runner.stop.set()

    bench.stages.while_running = stop


def test_stop_in_the_middle_leaves_the_step_waiting_and_the_cycle_open(bench: Bench) -> None:
    stop_in(bench, StepName.TRAIN)
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.RUNNING
    assert bench.store.open_cycles() == [cycle]
    assert step_states(cycle) == {
        **dict.fromkeys(StepName, StepState.WAITING),
        StepName.SELECT: StepState.DONE,
    }
    assert (cycle.step(StepName.TRAIN).lease_until, cycle.step(StepName.TRAIN).error) == (
        None,
        None,
    )
    assert bench.stages.names == [StepName.SELECT, StepName.TRAIN]
    assert bench.stages.begun[-1].was_killed
    assert not bench.store.is_leased(PAUSE_LEASE, at=bench.clock.now())


def test_finished_step_is_not_run_again_on_resume(bench: Bench, tmp_path: Path) -> None:
    stop_in(bench, StepName.TRAIN)
    bench.run(a_cycle())
    resumed = Bench(bench.store, tmp_path)
    cycle = resumed.run(a_cycle())
    assert cycle.state is CycleState.ENDED
    assert resumed.stages.names == STAGES[1:]
    assert cycle.step(StepName.SELECT).attempt == 1
    assert cycle.step(StepName.TRAIN).attempt == 1


def test_outage_longer_than_any_number_of_attempts_does_not_end_the_cycle(bench: Bench) -> None:
    bench.stages.statuses[StepName.REGISTER] = [TRY_LATER] * 20
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.ENDED
    assert bench.stages.counts[StepName.REGISTER] == 21
    assert bench.clock.past_s > 15 * 30


class AwayStore(SqlStore):
    """Cannot renew a lease for a while."""

    num_failures = 0

    def renew_step(self, cycle_id: str, name: StepName, *, token: str, until: datetime) -> bool:
        if self.num_failures:
            self.num_failures -= 1
            raise RetryLaterError("the store is away")
        return super().renew_step(cycle_id, name, token=token, until=until)


@pytest.mark.parametrize(("num_failures", "num_trained"), [(5, 1), (100, 2)])
def test_store_that_is_away_kills_a_stage_only_once_its_lease_has_run_out(
    tmp_path: Path, num_failures: int, num_trained: int
) -> None:
    store = AwayStore(f"sqlite:///{tmp_path / 'away.db'}", wheel=WHEEL)
    bench = Bench(store, tmp_path, verdict="reject")
    bench.stages.num_looks = 200

    outages = [num_failures]

    def go_away(name: StepName) -> None:
        if name is StepName.TRAIN and outages:
            store.num_failures = outages.pop()

    bench.stages.while_running = go_away
    assert bench.run(a_cycle()).state is CycleState.ENDED
    assert bench.stages.counts[StepName.TRAIN] == num_trained
    store.close()


def test_step_that_another_member_found_impossible_ends_the_cycle_here_too(bench: Bench) -> None:
    cycle = bench.store.add_cycle(a_cycle())
    step = (cycle.cycle_id, StepName.SELECT)
    bench.store.begin_step(*step, token="other", at=seconds(0), lease_until=seconds(900))

    def fail() -> None:
        bench.store.finish_step(
            *step, token="other", state=StepState.FAILED, at=seconds(1), error="too few pairs"
        )
        stop_when_idle()

    stop_when_idle, bench.clock.at_wait = bench.clock.at_wait, fail
    ended = bench.run(cycle)
    assert (ended.state, ended.error) == (CycleState.FAILED, "too few pairs")
    assert bench.stages.begun == []


def test_full_disk_before_a_stage_begins_ends_the_cycle_with_a_sentence(
    bench: Bench, tmp_path: Path
) -> None:
    def refuse(*args: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    bench.runner.spawn = refuse
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.FAILED
    assert (cycle.error or "").startswith("step select: it cannot be started in ")
    assert (cycle.error or "").endswith(": No space left on device")


def test_stop_does_not_wait_for_the_holder_of_a_step(bench: Bench) -> None:
    cycle = bench.store.add_cycle(a_cycle())
    bench.store.begin_step(
        cycle.cycle_id, StepName.SELECT, token="other", at=seconds(0), lease_until=seconds(900)
    )
    bench.clock.at_wait = bench.runner.stop.set
    bench.run(cycle)
    assert bench.clock.past_s < 1
    assert bench.stages.begun == []
    assert bench.stored(cycle).step(StepName.SELECT).token == "other"


def test_stop_while_the_last_attempt_is_waited_out_begins_no_other(bench: Bench) -> None:
    bench.stages.statuses[StepName.SELECT] = [TRY_LATER]

    def stop_between_attempts() -> None:
        if bench.stored(a_cycle()).step(StepName.SELECT).state is StepState.WAITING:
            bench.runner.stop.set()

    bench.clock.at_wait = stop_between_attempts
    cycle = bench.run(a_cycle())
    assert cycle.state is CycleState.RUNNING
    assert cycle.step(StepName.SELECT).attempt == 0
    assert bench.stages.counts[StepName.SELECT] == 1


def test_stopped_runner_begins_nothing(bench: Bench) -> None:
    bench.runner.stop.set()
    assert bench.run(a_cycle()).state is CycleState.REQUESTED
