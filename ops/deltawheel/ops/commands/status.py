"""`deltawheel status`."""

import click

from deltawheel.ops.console import age, json_option, print_json, print_table, settings_of

__all__ = ["command"]


@click.command("status")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the processes, how far the prompts are, and the current cycle; running or stopped."""
    from deltawheel.infra import wiring
    from deltawheel.ops.commands.cycle import current_step
    from deltawheel.ops.supervisor.runfile import metrics_urls, read_run

    settings = settings_of(context)
    run = read_run(settings)
    metrics = metrics_urls(settings, run) if run else {}
    with wiring.reading(settings) as store:
        progress = store.progress()
        cycle = next(iter(store.cycles(1)), None)
    if as_json:
        print_json(
            {
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
        )
        return
    if run is None:
        click.echo(f"wheel {settings.wheel} is stopped; `deltawheel up` starts it")
    else:
        click.echo(f"wheel {settings.wheel} runs, gateway {run.gateway_url}, broker {run.broker}")
        rows = [
            (
                p.name,
                p.phase.value,
                p.guard.pid if p.guard else None,
                p.num_restarts,
                metrics.get(p.name),
            )
            for p in run.processes
        ]
        print_table("processes", ("process", "state", "guard pid", "restarts", "metrics"), rows)
    waiting = age(progress.oldest_open_at, wiring.system_clock().now())
    counts: list[tuple[str, object]] = [
        ("prompts", progress.prompts),
        ("traces", progress.traces),
        ("judgements", progress.judgements),
        ("pairs", progress.pairs),
        *((outcome.value, count) for outcome, count in progress.outcomes.items()),
        *((f"unpaired, {cause.value}", count) for cause, count in progress.unpaired.items()),
        ("open", f"{progress.prompts - progress.closed} (oldest {waiting})"),
        ("dead letters", progress.dead_letters),
    ]
    print_table("rows", ("what", "count"), counts)
    if cycle:
        verdict = f", verdict {cycle.verdict.value}" if cycle.verdict else ""
        click.echo(f"last cycle {cycle.cycle_id}: {current_step(cycle)}{verdict}")
