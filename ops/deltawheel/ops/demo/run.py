"""The demo's course: start, feed, drain, one cycle, stop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import click
import psutil

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, Trigger
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.pool import Pool, generator_delta
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.cycles import request_cycle
from deltawheel.ops.demo.controls import start_controls
from deltawheel.ops.demo.live import Live
from deltawheel.ops.demo.summary import DemoResult
from deltawheel.ops.demo.world import demo_prompts, demo_settings, prepare_home
from deltawheel.ops.feeding import submit_patiently
from deltawheel.ops.supervisor.runfile import read_run
from deltawheel.ops.wheel import READY_TIMEOUT_S, RunningWheel, running_wheel

__all__ = ["DemoPlan", "run_demo"]

_LOOK_EVERY_S: Final = 0.5
_MEASURE_EVERY_S: Final = 3.0
_ENDS: Final = frozenset({CycleState.ENDED, CycleState.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What the options of `deltawheel demo` ask for."""

    home: Path
    is_sabotaged: bool
    with_controls: bool
    num_prompts: int
    num_items: int
    seed: int


def run_demo(plan: DemoPlan) -> DemoResult:
    """Run it; every process has ended when this returns or raises.

    Raises:
        ConfigError: the folder is not the demo's, or the environment overrides its settings.
        DeltawheelError: a wheel runs on the demo's home, or a process cannot run; the message
            names its log.
        click.Abort: somebody pressed Ctrl-C.
    """
    settings = demo_settings(
        plan.home, is_sabotaged=plan.is_sabotaged, num_items=plan.num_items, seed=plan.seed
    )
    _refuse_if_running(settings)
    prepare_home(settings)
    with running_wheel(settings, say=_say) as wheel, _memory_peak() as peak:
        live = Live(clock=wheel.clock)
        try:
            _stream(wheel, live, plan)
            cycle = _cycle(wheel, live)
            elapsed_s = live.elapsed_s
            controls = _controls(wheel, live, cycle) if plan.with_controls else ()
        finally:
            live.phase("stopping in order")
            wheel.supervisor.stop()
        return DemoResult(
            settings=wheel.settings,
            progress=wheel.store.progress(),
            deltas=wheel.store.delta_stats(),
            generator_deltas=_generator_deltas(wheel),
            cycle=cycle,
            decision=_decision(wheel.settings, cycle),
            controls=controls,
            elapsed_s=elapsed_s,
            state_bytes=_size(wheel.settings.home),
            peak_memory_bytes=peak[0],
        )


def _say(text: str) -> None:
    click.echo(text, err=True)


def _refuse_if_running(settings: Settings) -> None:
    if run := read_run(settings):
        raise DeltawheelError(
            f"a wheel runs on {settings.home} (pid {run.supervisor.pid}): stop it, or name another "
            "folder with --home"
        )


def _stream(wheel: RunningWheel, live: Live, plan: DemoPlan) -> None:
    """Start everything, feed the prompts, and wait until each has its outcome."""
    sabotage = ", with an INVERTED judge" if plan.is_sabotaged else ""
    live.phase(f"starting broker, vLLM and six services{sabotage}")
    supervisor = wheel.supervisor
    is_up = supervisor.wait_ready(READY_TIMEOUT_S, should_stop=wheel.stop.is_set)
    if not is_up:
        raise click.Abort
    live.phase(f"ready; feeding {plan.num_prompts} prompts through {wheel.gateway_url}")
    gateway = wiring.open_gateway(wheel.gateway_url)
    prompts = demo_prompts(plan.num_prompts, seed=plan.seed)
    while batch := list(islice(prompts, wheel.settings.gateway.max_batch)):
        submit_patiently(gateway, batch, clock=wheel.clock, say=live.phase)

    def is_drained() -> bool:
        progress = wheel.store.progress()
        live.stream(progress)
        return progress.is_drained

    _watch(wheel, is_drained)


def _watch(wheel: RunningWheel, is_done: Callable[[], bool]) -> None:
    """Keep the wheel turning until done, looking twice a second.

    Raises:
        click.Abort: somebody stopped the demo.
        DeltawheelError: a process cannot run.
    """
    next_look_s = 0.0

    def is_over() -> bool:
        nonlocal next_look_s
        if wheel.stop.is_set():
            return True
        now_s = wheel.clock.monotonic()
        if now_s < next_look_s:
            return False
        next_look_s = now_s + _LOOK_EVERY_S
        return is_done()

    wheel.supervisor.run_until(is_over)
    if wheel.stop.is_set():
        raise click.Abort


def _cycle(wheel: RunningWheel, live: Live) -> Cycle:
    live.phase("every prompt has its outcome; one training cycle")
    asked = request_cycle(wheel.store, wheel.settings, wheel.clock, Trigger.OPERATOR)
    cycle = asked

    def has_ended() -> bool:
        nonlocal cycle
        cycle = wheel.store.cycle(asked.cycle_id) or asked
        live.cycle(cycle)
        return cycle.state in _ENDS

    _watch(wheel, has_ended)
    return cycle


def _controls(wheel: RunningWheel, live: Live, cycle: Cycle) -> Sequence[Mapping[str, Any]]:
    """Train the controls beside the supervised wheel: vLLM must go on serving meanwhile."""
    live.phase("controls: the same pairs, less what should make the gain")
    random = wiring.system_random()
    run = start_controls(wheel.settings, cycle.cycle_id, random=random, say=live.phase)
    try:
        _watch(wheel, run.has_ended)
    finally:
        run.process.kill()
    return run.rows()


def _generator_deltas(wheel: RunningWheel) -> Mapping[str, str]:
    pool = Pool.from_log(wheel.store.pool_log())
    members = pool.members.values()
    deltas = {
        (a.name, b.name): generator_delta(a, b, pool=pool)
        for a in members
        for b in members
        if a != b
    }
    return {
        f"{chosen}/{rejected}": f"{delta.estimate:+.2f} ± {delta.stderr:.2f} ({delta.scale})"
        for (chosen, rejected), delta in deltas.items()
    }


def _decision(settings: Settings, cycle: Cycle) -> GateDecision | None:
    path = settings.state / "cycles" / cycle.cycle_id / StepName.GATE.value / "gate.json"
    return GateDecision.model_validate_json(path.read_text()) if path.is_file() else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _memory_peak() -> Iterator[list[int]]:
    """Measure the most memory that this process and all its descendants held at once, in bytes.

    Proportional set size: pages that processes share count once.
    """
    peak, done = [0], Event()

    def measure() -> None:
        while not done.wait(_MEASURE_EVERY_S):
            peak[0] = max(peak[0], _tree_memory())

    thread = Thread(target=measure, name="memory-peak", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _tree_memory() -> int:
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
