"""`deltawheel status`."""

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from deltawheel.ops.console import (
    age,
    json_option,
    one_line,
    plain,
    print_json,
    print_table,
    settings_of,
)

if TYPE_CHECKING:
    from deltawheel.contracts.cycle import Cycle
    from deltawheel.contracts.letters import LetterEntry
    from deltawheel.contracts.store import Progress
    from deltawheel.ops.supervisor.runfile import RunRecord

__all__ = ["command"]

_CUT = 200


@click.command("status")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the processes, how far the prompts are, and the current cycle; running or stopped."""
    from deltawheel.contracts.spending import read_spending
    from deltawheel.infra import wiring
    from deltawheel.ops.interruptions_view import find_interruptions
    from deltawheel.ops.judging_view import JudgingView
    from deltawheel.ops.spending_view import show_spending, spending_json
    from deltawheel.ops.supervisor.runfile import metrics_urls, read_run

    settings = settings_of(context)
    run = read_run(settings)
    metrics = metrics_urls(settings, run) if run else {}
    with wiring.reading(settings) as store:
        progress = store.progress()
        cycle = next(iter(store.cycles(1)), None)
        with closing(store.letter_entries()) as entries:
            waiting = next(entries, None)
        now = wiring.system_clock().now()
        held_up = find_interruptions(store, now=now)
        spending = read_spending(store, store.pool_log())
        judging = JudgingView.read(store, judged=progress.judgements)
    if as_json:
        told = _as_json(run, metrics, progress, cycle, waiting)
        views = {"spending": spending_json(spending), "judging": judging.as_json()}
        print_json(told | held_up.as_json() | views)
        return
    if run is None:
        click.echo(f"wheel {settings.wheel} is stopped; `deltawheel up` starts it")
    else:
        _show_run(settings.wheel, run, metrics)
    _show_rows(progress)
    show_spending(spending)
    if waiting:
        _show_waiting(waiting)
    for line in (*judging.lines(now), *held_up.lines(now)):
        click.echo(plain(line))
    if cycle:
        _show_cycle(cycle)


def _as_json(
    run: "RunRecord | None",
    metrics: Mapping[str, str],
    progress: "Progress",
    cycle: "Cycle | None",
    waiting: "LetterEntry | None",
) -> dict[str, Any]:
    from deltawheel.ops.letter_view import entry_json

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
        "unmoved_dead_letters": progress.unmoved_letters,
        "newest_dead_letter": entry_json(waiting) if waiting else None,
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
        ("not replayed or dropped", progress.unmoved_letters),
    ]
    print_table("rows", ("what", "count"), rows)


def _show_waiting(entry: "LetterEntry") -> None:
    where = f"{entry.service}: " if entry.service else ""
    click.echo(
        f"newest dead letter {entry.entry_id}: {one_line(where + entry.reason[:_CUT])}; "
        "`deltawheel dead-letters list` shows all"
    )


def _show_cycle(cycle: "Cycle") -> None:
    from deltawheel.ops.commands.cycle import current_step

    verdict = f", verdict {cycle.verdict.value}" if cycle.verdict else ""
    click.echo(f"last cycle {cycle.cycle_id}: {current_step(cycle)}{verdict}")
