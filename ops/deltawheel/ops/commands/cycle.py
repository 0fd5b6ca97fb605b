"""`deltawheel cycle`."""

import click

from deltawheel.contracts.cycle import Cycle, CycleState, StepState, Trigger
from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.ops.console import age, json_option, plain, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("cycle")
def command() -> None:
    """Run and show training cycles."""


@command.command("run")
@json_option
@click.pass_context
def run(context: click.Context, as_json: bool) -> int:
    """Ask the running wheel for a training cycle and wait for its verdict.

    Exit code 0: promoted; 3: rejected; 4: inconclusive; 1: the cycle failed.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.cycles import follow_cycle, request_cycle
    from deltawheel.ops.running import require_running

    settings = settings_of(context)
    require_running(settings)
    clock = wiring.system_clock()
    with wiring.reading(settings) as store:
        asked = request_cycle(store, settings, clock, Trigger.OPERATOR)
        cycle, last = asked, ""
        for cycle in follow_cycle(store, asked.cycle_id, clock):
            now = current_step(cycle)
            if now != last:
                click.echo(now, err=True)
                last = now
    if as_json:
        print_json(cycle)
    else:
        show_cycle(cycle)
    return exit_code(cycle)


def exit_code(cycle: Cycle) -> ExitCode:
    """Return the status with which a command that waited for this cycle ends."""
    if cycle.verdict is None:
        return ExitCode.FAILURE
    return cycle.verdict.exit_code


def current_step(cycle: Cycle) -> str:
    """Say in a few words where a cycle is."""
    for step in cycle.steps:
        if step.state is StepState.RUNNING:
            again = f", attempt {step.attempt}" if step.attempt > 1 else ""
            return f"{step.name.value}{again}"
    return "ended" if cycle.state is CycleState.ENDED else cycle.state.value


@command.command("list")
@click.option("--limit", default=20, show_default=True, help="How many cycles to list.")
@json_option
@click.pass_context
def list_cycles(context: click.Context, limit: int, as_json: bool) -> None:
    """List cycles, newest first."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        cycles = store.cycles(limit)
    if as_json:
        print_json(cycles)
        return
    now = wiring.system_clock().now()
    rows = [
        (
            cycle.cycle_id,
            cycle.trigger.value,
            current_step(cycle),
            cycle.verdict.value if cycle.verdict else "",
            age(cycle.requested_at, now),
        )
        for cycle in cycles
    ]
    print_table(f"{len(rows)} cycles", ("cycle", "trigger", "state", "verdict", "asked for"), rows)


@command.command("show")
@click.argument("cycle_id")
@json_option
@click.pass_context
def show(context: click.Context, cycle_id: str, as_json: bool) -> None:
    """Show one cycle: its steps, their attempts, seconds and results."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        cycle = store.cycle(cycle_id)
    if cycle is None:
        raise DeltawheelError(f"there is no cycle {cycle_id}; `deltawheel cycle list` names them")
    if as_json:
        print_json(cycle)
    else:
        show_cycle(cycle)


def show_cycle(cycle: Cycle) -> None:
    """Print a cycle's steps and, where there is one, its verdict or error."""
    rows = [
        (
            step.name.value,
            step.state.value,
            step.attempt,
            f"{(step.ended_at - step.started_at).total_seconds():.1f}"
            if step.started_at and step.ended_at
            else "",
            step.error or "; ".join(f"{key}={value}" for key, value in step.result.items())[:160],
        )
        for step in cycle.steps
    ]
    print_table(cycle.cycle_id, ("step", "state", "attempts", "seconds", "result"), rows)
    if cycle.verdict:
        click.echo(f"verdict: {cycle.verdict.value}")
    if cycle.error:
        click.echo(f"failed: {plain(cycle.error)}")
