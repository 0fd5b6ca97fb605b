"""`deltawheel judge agreement`."""

from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, plain, print_json, print_table, settings_of

if TYPE_CHECKING:
    from deltawheel.contracts.agreement import Panel
    from deltawheel.ops.agreement import Agreement

__all__ = ["agreement"]


@click.command("agreement")
@click.option("--since", help="An age such as 90m or 2d, or a time such as 2026-05-01T12:00 (UTC).")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Read only so many judgements, the newest.",
)
@json_option
@click.pass_context
def agreement(context: click.Context, since: str | None, limit: int, as_json: bool) -> int:
    """Tell how far the judges of the jury (judge.jury) agree, by dimension.

    Krippendorff's alpha: 1 is agreement, 0 is what scores given by lot would show; many want 0.8,
    and take nothing below 0.667. The interval holds 95 % of what other traces would have shown. A
    judge at another revision, or another rubric, is told of by itself. Exit code 1 if no trace was
    judged by several.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.agreement import agreements
    from deltawheel.ops.moments import moment_of
    from deltawheel.ops.running import as_it_runs

    settings = as_it_runs(settings_of(context))
    try:
        after = moment_of(since, wiring.system_clock().now()) if since else None
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    with wiring.reading(settings) as store:
        found = agreements(store, wiring.seeded_random("agreement"), since=after, limit=limit)
    if as_json:
        print_json({"panels": [_told(panel, rows) for panel, rows in found]})
    elif not found:
        click.echo("no trace was judged by several judges; judge.jury.members names further ones")
    else:
        for panel, rows in found:
            _show(panel, rows)
    return ExitCode.DONE if found else ExitCode.FAILURE


def _told(panel: "Panel", rows: "list[Agreement]") -> dict[str, object]:
    named = zip(panel.judges, panel.revisions, strict=True)
    return {
        "rubric_digest": panel.rubric_digest,
        "judges": [{"name": name, "revision": revision} for name, revision in named],
        "traces": len(panel.opinions),
        "missing_opinions": panel.num_missing,
        "agreement": [row.told() for row in rows],
    }


def _show(panel: "Panel", rows: "list[Agreement]") -> None:
    lacks = f", {panel.num_missing} opinions missing" if panel.num_missing else ""
    named = zip(panel.judges, panel.revisions, strict=True)
    title = f"{len(panel.opinions)} traces{lacks}, under {panel.rubric_digest}: " + ", ".join(
        f"{name} at {revision}" for name, revision in named
    )
    columns = ("judges", "dimension", "traces", "alpha", "95 %", "ordinal", "first higher by")
    print_table(plain(title), columns, [_row(row) for row in rows])


def _row(row: "Agreement") -> tuple[object, ...]:
    low_high = f"{row.interval[0]:.2f} to {row.interval[1]:.2f}" if row.interval else ""
    return (
        ", ".join(row.judges),
        row.dimension,
        row.num_traces,
        _number(row.interval_alpha),
        low_high,
        _number(row.ordinal_alpha),
        "" if row.first_is_higher is None else f"{row.first_is_higher:+.2f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
