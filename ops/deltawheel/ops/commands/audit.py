"""`deltawheel audit`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import age, json_option, print_json, print_table, settings_of

if TYPE_CHECKING:
    from deltawheel.contracts.audit import Audit
    from deltawheel.contracts.settings import Settings
    from deltawheel.contracts.topic_audit import DeepAudit, GroupOffset

__all__ = ["command"]

_SHOWN: Final = 50
_QUIET_S: Final = 2.0


@click.command("audit")
@click.option(
    "--deep",
    is_flag=True,
    help="Also read every payload and every record of the topics; takes a while.",
)
@json_option
@click.pass_context
def command(context: click.Context, deep: bool, as_json: bool) -> int:
    """Account for every accepted prompt, from evidence rows alone.

    Derives each outcome anew from assignments, traces, slot ends, judgements, pairs, quarantine
    and transitions, compares it with the stored one, and names what is missing, double or
    contradictory; exit 1 if there is any. Works on a running wheel, for which nothing waits, and
    on a stopped one; the topics add how far they are read, where the broker answers.

    With --deep, what every row says beside its payload, and every record of the topics, is
    compared with the stored record.
    """
    from deltawheel.contracts.audit import account
    from deltawheel.infra import wiring

    settings = settings_of(context)
    progress = _progress()
    offsets, unreached = _offsets(settings)
    with wiring.reading(settings) as store:
        with store.snapshot() as snapshot:
            audit = account(
                snapshot, rubric=settings.make_rubric(), progress=progress, is_deep=deep
            )
        topics = None
        if deep and offsets is not None:
            from deltawheel.ops.topic_audit import compare_topics

            topics = compare_topics(settings, store, progress=progress)
            for finding in topics.findings:
                audit.add(finding)
    if as_json:
        print_json(_report(audit, offsets, unreached, topics))
    else:
        _show(audit, offsets, unreached, topics)
    return ExitCode.DONE if audit.is_clean else ExitCode.FAILURE


def _progress() -> Callable[[str], None]:
    """Say on stderr what is being read, once it takes longer than a moment."""
    from deltawheel.infra import wiring

    clock = wiring.system_clock()
    began_s = said_s = clock.monotonic()

    def say(what: str) -> None:
        nonlocal said_s
        now_s = clock.monotonic()
        if now_s - said_s >= _QUIET_S:
            said_s = now_s
            click.echo(f"[{now_s - began_s:6.0f} s] reading {what}", err=True)

    return say


def _offsets(settings: "Settings") -> "tuple[list[GroupOffset] | None, str | None]":
    """Return how far the topics are read, or why nobody knows; the audit needs neither."""
    from deltawheel.contracts.errors import DeltawheelError
    from deltawheel.ops.topic_audit import read_offsets

    try:
        return read_offsets(settings), None
    except DeltawheelError as error:
        return None, str(error)


def _report(
    audit: "Audit",
    offsets: "list[GroupOffset] | None",
    unreached: str | None,
    topics: "DeepAudit | None",
) -> dict[str, Any]:
    return {
        "prompts": audit.prompts,
        "outcomes": {outcome.value: n for outcome, n in audit.outcomes.items()},
        "in_flight": audit.in_flight,
        "oldest_in_flight_at": audit.oldest_in_flight_at,
        "stages": {
            stage.value: {
                "prompts": held.prompts,
                "oldest_at": held.oldest_at,
                "oldest_prompt_id": held.oldest.prompt_id,
                "oldest_round": held.oldest.round,
            }
            for stage, held in audit.stages.items()
        },
        "num_findings": audit.num_findings,
        "findings": [asdict(finding) for finding in audit.findings],
        "offsets": None if offsets is None else [asdict(it) | {"lag": it.lag} for it in offsets],
        "offsets_unknown_because": unreached,
        "topics": None
        if topics is None
        else {"records": topics.messages, "dead": topics.dead, "unread": topics.unread},
        "is_clean": audit.is_clean,
    }


def _show(
    audit: "Audit",
    offsets: "list[GroupOffset] | None",
    unreached: str | None,
    topics: "DeepAudit | None",
) -> None:
    from deltawheel.contracts.outcome import Outcome
    from deltawheel.infra import wiring

    now = wiring.system_clock().now()
    rows: list[tuple[str, object]] = [(o.value, audit.outcomes.get(o, 0)) for o in Outcome]
    waiting = age(audit.oldest_in_flight_at, now)
    rows.append(("in flight", f"{audit.in_flight} (oldest {waiting})"))
    print_table(f"{audit.prompts} prompts", ("outcome", "prompts"), rows)
    if audit.stages:
        stages = [
            (stage.value, held.prompts, age(held.oldest_at, now), held.oldest.prompt_id)
            for stage, held in sorted(audit.stages.items())
        ]
        print_table("in flight", ("waits for", "prompts", "oldest", "which is"), stages)
    if offsets is None:
        click.echo(f"topics: how far they are read is not known: {unreached}")
    else:
        groups = [(it.topic, it.group, it.committed, it.end, it.lag) for it in offsets]
        print_table("topics", ("topic", "group", "committed", "end", "lag"), groups)
    if topics is not None:
        click.echo(
            f"{topics.messages.total()} records of topics compared: {topics.dead} are dead "
            f"letters, {topics.unread} cannot be told before a service has read them"
        )
    _show_findings(audit)


def _show_findings(audit: "Audit") -> None:
    if audit.is_clean:
        click.echo("every prompt is accounted for")
        return
    findings = [
        (f.kind, f.prompt_id, f.round, f.attempt, f.fact, "; ".join(f.rows))
        for f in audit.findings[:_SHOWN]
    ]
    columns = ("kind", "prompt", "round", "attempt", "fact", "rows")
    print_table(f"{audit.num_findings} findings", columns, findings)
    if audit.num_findings > len(findings):
        click.echo(f"the first {len(findings)} are shown; --json has up to {len(audit.findings)}")
