"""`deltawheel audit`."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import age, json_option, print_json, print_table, settings_of

if TYPE_CHECKING:
    from deltawheel.contracts.audit import Audit

__all__ = ["command"]

_SHOWN = 50


@click.command("audit")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """Account for every accepted prompt, from evidence rows alone.

    Derives each outcome anew from assignments, traces, slot ends, judgements, pairs and
    quarantine, compares it with the stored one, and names what is missing, double or
    contradictory; exit 1 if there is any. Works on a running and on a stopped wheel.
    """
    from deltawheel.contracts.audit import examine
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        audit = examine(store.evidence())
    if as_json:
        print_json(
            {
                "prompts": audit.prompts,
                "outcomes": {outcome.value: n for outcome, n in audit.outcomes.items()},
                "in_flight": audit.in_flight,
                "oldest_in_flight_at": audit.oldest_in_flight_at,
                "findings": [asdict(finding) for finding in audit.findings],
                "is_clean": audit.is_clean,
            }
        )
    else:
        _show(audit)
    return ExitCode.DONE if audit.is_clean else ExitCode.FAILURE


def _show(audit: "Audit") -> None:
    from deltawheel.contracts.outcome import Outcome
    from deltawheel.infra import wiring

    rows: list[tuple[str, object]] = [(o.value, audit.outcomes.get(o, 0)) for o in Outcome]
    waiting = age(audit.oldest_in_flight_at, wiring.system_clock().now())
    rows.append(("in flight", f"{audit.in_flight} (oldest {waiting})"))
    print_table(f"{audit.prompts} prompts", ("outcome", "prompts"), rows)
    if audit.is_clean:
        click.echo("every prompt is accounted for")
        return
    findings = [(f.kind, f.prompt_id, f.round, f.fact) for f in audit.findings[:_SHOWN]]
    print_table(f"{len(audit.findings)} findings", ("kind", "prompt", "round", "fact"), findings)
