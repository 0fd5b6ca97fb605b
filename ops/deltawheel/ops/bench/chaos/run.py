"""The course of a chaos run: start, storm, settle, account, stop."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

import click

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.bench.chaos.feeder import Feeder
from deltawheel.ops.bench.chaos.models import ModelServer
from deltawheel.ops.bench.chaos.report import ChaosResult, write_report
from deltawheel.ops.bench.chaos.schedule import make_schedule
from deltawheel.ops.bench.chaos.storm import Storm
from deltawheel.ops.bench.chaos.verdict import Verdict, judge_store, run_audit
from deltawheel.ops.bench.chaos.watch import Watch
from deltawheel.ops.bench.chaos.wheel import ChaosWheel
from deltawheel.ops.bench.chaos.witness import Redeliveries, StoreView
from deltawheel.ops.bench.chaos.world import (
    chaos_prompts,
    chaos_settings,
    prepare_home,
    remove_state,
)
from deltawheel.ops.supervisor.signals import stop_on_signals

__all__ = ["ChaosPlan", "run_chaos"]

_TICK_S: Final = 0.1
_READY_TIMEOUT_S: Final = 300.0
_STALL_TIMEOUT_S: Final = 300.0
_MOST_OPEN: Final = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """What the options of `deltawheel bench chaos` ask for."""

    home: Path
    num_kills: int
    seed: int
    garbage_size: int
    members_size: int
    keeps_state: bool


def run_chaos(plan: ChaosPlan) -> ChaosResult:
    """Run it; every process that it started has ended when this returns or raises.

    Raises:
        ConfigError: Kafka or PostgreSQL is not there, or the folder is not the bench's.
        DeltawheelError: the wheel does not start, or nothing moves any more.
        click.Abort: somebody pressed Ctrl-C.
    """
    clock = wiring.system_clock()
    say = _Sayer(clock)
    home = plan.home.expanduser().resolve()
    models = ModelServer(home, seed=plan.seed, clock=clock)
    settings = chaos_settings(home, models.url)
    prepare_home(settings)
    wheel = ChaosWheel(settings, clock)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(wheel.hurry))
        stack.callback(wheel.kill_survivors)
        stack.callback(models.kill)
        stack.enter_context(_stopped(wheel, say))
        storm = _make_storm(plan, settings, wheel, models, clock, say)
        stack.callback(storm.watch.view.close)
        stack.callback(storm.stop)
        verdict = _Course(storm=storm, stop=stop).run()
        say("stopping in order")
        storm.watch.view.close()
        wheel.stop()
        survivors = tuple(one.pid for one in wheel.survivors())
    result = _result(plan, storm, verdict, survivors, wall_s=say.elapsed_s)
    write_report(result, home)
    if result.is_clean and not plan.keeps_state:
        remove_state(home)
    return result


@dataclass(slots=True)
class _Sayer:
    """Says what happens, with the seconds since the start, on standard error."""

    clock: Clock
    _started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock.monotonic()

    @property
    def elapsed_s(self) -> float:
        return self.clock.monotonic() - self._started_s

    def __call__(self, text: str) -> None:
        click.echo(f"[{self.elapsed_s:5.0f} s] {text}", err=True)


@contextmanager
def _stopped(wheel: ChaosWheel, say: Callable[[str], None]) -> Iterator[None]:
    """Stop the wheel in order, however the block ends."""
    try:
        yield
    finally:
        if not wheel.has_ended:
            say("stopping the wheel")
            wheel.stop()


def _make_storm(
    plan: ChaosPlan,
    settings: Settings,
    wheel: ChaosWheel,
    models: ModelServer,
    clock: Clock,
    say: Callable[[str], None],
) -> Storm:
    random = wiring.system_random().seeded(plan.seed)
    watch = Watch(
        wheel=wheel,
        feeder=Feeder(
            chaos_prompts(), find_gateway=wheel.gateway, most_open=_MOST_OPEN, clock=clock
        ),
        view=StoreView(settings),
        redeliveries=Redeliveries(settings),
        clock=clock,
        say=say,
    )
    return Storm(
        watch=watch,
        models=models,
        schedule=make_schedule(random, num_kills=plan.num_kills),
        random=random,
        garbage_size=plan.garbage_size,
        members_size=plan.members_size,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """The phases of a run; it has failed when nothing moves for five minutes."""

    storm: Storm
    stop: Event

    def run(self) -> Verdict:
        storm, watch = self.storm, self.storm.watch
        watch.say("starting Kafka, PostgreSQL, a faulty model server and six services")
        storm.models.start(is_faulty=True)
        watch.wheel.start()
        self._wait(lambda: watch.wheel.is_ready, lambda: watch.wheel.num_starts)
        watch.feeder.start()
        watch.say(f"ready; {len(storm.schedule)} blows are coming")
        self._wait(lambda: storm.is_over, lambda: storm.num_left, each=storm.tick)
        watch.say("the storm is over: no faults, nothing new, until everything has its outcome")
        storm.traps.disarm()
        storm.models.kill()
        storm.models.start(is_faulty=False)
        watch.feeder.stop()
        self._settle()
        return self._account()

    def _settle(self) -> None:
        """Wait until the store says that nothing is open, or nothing moves any more."""
        watch = self.storm.watch
        try:
            self._wait(lambda: self._is_drained(), lambda: watch.progress)
        except _StalledError as error:
            watch.say(f"{error}: what is open now is lost")

    def _is_drained(self) -> bool:
        progress = self.storm.watch.progress
        is_fresh = self.storm.watch.progress_at_s >= self.storm.watch.feeder.stopped_at_s
        return progress is not None and is_fresh and progress.is_drained

    def _account(self) -> Verdict:
        watch = self.storm.watch
        watch.say("accounting for everything that was accepted")
        store = watch.store()
        if store is None:
            raise DeltawheelError(f"the store is away: look into {watch.wheel.log_file}")
        return judge_store(
            store,
            run_audit(watch.wheel.config),
            accepted=watch.feeder.accepted,
            num_garbage=self.storm.num_garbage,
        )

    def _wait(
        self,
        is_done: Callable[[], bool],
        mark: Callable[[], object],
        *,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch until it is done.

        Raises:
            click.Abort: somebody pressed Ctrl-C.
            _StalledError: `mark` has not changed for minutes.
        """
        watch = self.storm.watch
        last, since_s = mark(), watch.clock.monotonic()
        while not is_done():
            if self.stop.is_set():
                raise click.Abort
            watch.tick()
            each()
            if (now := mark()) != last:
                last, since_s = now, watch.clock.monotonic()
            if watch.clock.monotonic() - since_s > _STALL_TIMEOUT_S:
                raise _StalledError(
                    f"nothing moved for {_STALL_TIMEOUT_S:g} s ({watch.describe()}); look into "
                    f"{watch.wheel.log_file} and the logs in {watch.wheel.settings.state}"
                )
            watch.clock.wait(_TICK_S)


class _StalledError(DeltawheelError):
    """Nothing moves any more."""


def _result(
    plan: ChaosPlan, storm: Storm, verdict: Verdict, survivors: tuple[int, ...], *, wall_s: float
) -> ChaosResult:
    watch, traps = storm.watch, storm.traps
    return ChaosResult(
        seed=plan.seed,
        wall_s=wall_s,
        verdict=verdict,
        kills=watch.kills,
        outages=watch.outages,
        held={f"{at.point} of {at.service}": number for at, number in traps.held.items()},
        missed=tuple(f"{at.point} of {at.service}" for at in traps.missed),
        recoveries=watch.recoveries,
        effects_found=watch.redeliveries.num_found,
        owed_republished=watch.redeliveries.num_owed,
        unanswered=watch.feeder.unanswered,
        num_garbage=storm.num_garbage,
        num_members=storm.num_members,
        num_given_up=watch.num_given_up,
        survivors=survivors,
    )
