"""`deltawheel status`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from deltawheel.ops.console import age, json_option, print_json, print_table, settings_of

if TYPE_CHECKING:
    from deltawheel.contracts.cycle import Cycle
    from deltawheel.contracts.store import Progress
    from deltawheel.ops.supervisor.runfile import RunRecord

__all__ = ["command"]


@click.command("status")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the processes, how far the prompts are, and the current cycle; running or stopped."""
    from deltawheel.infra import wiring
    from deltawheel.ops.supervisor.runfile import metrics_urls, read_run

    settings = settings_of(context)
    run = read_run(settings)
    metrics = metrics_urls(settings, run) if run else {}
    with wiring.reading(settings) as store:
        progress = store.progress()
        cycle = next(iter(store.cycles(1)), None)
    if as_json:
        print_json(_as_json(run, metrics, progress, cycle))
        return
    if run is None:
        click.echo(f"wheel {settings.wheel} is stopped; `deltawheel up` starts it")
    else:
        _show_run(settings.wheel, run, metrics)
    _show_rows(progress)
    if cycle:
        _show_cycle(cycle)


def _as_json(
    run: "RunRecord | None",
    metrics: Mapping[str, str],
    progress: "Progress",
    cycle: "Cycle | None",
) -> dict[str, Any]:
    return {
        "is_running": run is not None,
        "run": run.model_dump(mode="json") if run else None,
        "metrics": metrics,
        "prompts": progress.prompts,
        "assigned": progress.assigned,
        "traces": progress.traces,
        "judgements": progress.judgements,
        "slot_failures": progress.slot_failures,
        "pairs": progress.pairs,
        "quarantined": dict(progress.quarantined),
        "dead_letters": progress.dead_letters,
        "completion_tokens": progress.completion_tokens,
        "outcomes": {outcome.value: n for outcome, n in progress.outcomes.items()},
        "unpaired": {cause.value: n for cause, n in progress.unpaired.items()},
        "open": progress.prompts - progress.closed,
        "oldest_open_at": progress.oldest_open_at,
        "cycle": cycle,
    }


def _show_run(wheel: str, run: "RunRecord", metrics: Mapping[str, str]) -> None:
    click.echo(f"wheel {wheel} runs, gateway {run.gateway_url}, broker {run.broker}")
    rows = [
        (
            process.name,
            process.phase.value,
            process.guard.pid if process.guard else None,
            process.num_restarts,
            metrics.get(process.name),
        )
        for process in run.processes
    ]
    print_table("processes", ("process", "state", "guard pid", "restarts", "metrics"), rows)


def _show_rows(progress: "Progress") -> None:
    from deltawheel.infra import wiring

    waiting = age(progress.oldest_open_at, wiring.system_clock().now())
    rows: list[tuple[str, object]] = [
        ("prompts", progress.prompts),
        ("traces", progress.traces),
        ("judgements", progress.judgements),
        ("pairs", progress.pairs),
        *((outcome.value, count) for outcome, count in progress.outcomes.items()),
        *((f"unpaired, {cause.value}", count) for cause, count in progress.unpaired.items()),
        ("open", f"{progress.prompts - progress.closed} (oldest {waiting})"),
        ("dead letters", progress.dead_letters),
    ]
    print_table("rows", ("what", "count"), rows)


def _show_cycle(cycle: "Cycle") -> None:
    from deltawheel.ops.commands.cycle import current_step

    verdict = f", verdict {cycle.verdict.value}" if cycle.verdict else ""
    click.echo(f"last cycle {cycle.cycle_id}: {current_step(cycle)}{verdict}")
