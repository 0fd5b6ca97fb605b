"""`deltawheel judge anchors`."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.ops.commands.judge_conformance import of_judge
from deltawheel.ops.console import age, json_option, plain, print_json, print_table, settings_of
from deltawheel.ops.operator import by_option

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from deltawheel.contracts.anchor_runs import AnchorEntry, AnchorRun
    from deltawheel.contracts.settings import Settings
    from deltawheel.contracts.store import Store

__all__ = ["anchors"]


@click.command("anchors")
@click.option("--run", "runs_now", is_flag=True, help="Judge the anchors now, and compare.")
@click.option(
    "--accept", "accepts", is_flag=True, help="Take what the judge now scores as the new baseline."
)
@click.option("--reason", help="Why the new level is right; kept, and --accept asks for it.")
@click.option("--limit", default=20, show_default=True, help="How many runs to list.")
@by_option
@json_option
@click.pass_context
def anchors(
    context: click.Context,
    runs_now: bool,
    accepts: bool,
    reason: str | None,
    limit: int,
    by: str,
    as_json: bool,
) -> int:
    """Show whether the judge still scores the anchors as it did when it was first asked.

    Judging does so on a schedule (anchors.interval_s). Where the mean over the anchors has moved
    on a dimension by more than its limit, judging has drifted, and no cycle selects until the
    judge scores as before or its new level is accepted. Exit code 1 if it has drifted.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.running import as_it_runs

    if accepts and not reason:
        raise click.UsageError("--accept needs --reason: say why the judge may score otherwise")
    settings = of_judge(as_it_runs(settings_of(context)), None)
    now = wiring.system_clock().now()
    with wiring.reading(settings) as store:
        if runs_now:
            asyncio.run(_run(settings, store))
        if accepts:
            _accept(settings, store, by=by, reason=reason or "", at=now)
        entries = store.anchor_runs(limit)
        digest = settings.make_rubric().digest
        drift = store.judge_drift(wiring.judge_revision(settings), digest)
    if as_json:
        drifted = drift.sentence if drift else None
        print_json({"drift": drifted, "runs": [_told(entry) for entry in entries]})
    else:
        _show(entries, now)
        if drift:
            click.echo(plain(drift.sentence))
    return ExitCode.FAILURE if drift else ExitCode.DONE


async def _run(settings: "Settings", store: "Store") -> None:
    from deltawheel.infra import wiring
    from deltawheel.services.judging.anchors import AnchorWatch

    async with wiring.judge_on_trial(settings, lambda body, reply: None) as judge:
        watch = AnchorWatch.from_settings(
            settings,
            store=store,
            judge=judge,
            clock=wiring.system_clock(),
            random=wiring.system_random(),
            telemetry=wiring.open_telemetry(settings),
        )
        await watch.run()


def _accept(settings: "Settings", store: "Store", *, by: str, reason: str, at: "datetime") -> None:
    """Take the newest run of the settings' judge as its baseline.

    Raises:
        DeltawheelError: there is nothing to accept, somebody else has done so meanwhile, or the
            judge has been found moved again since.
    """
    from deltawheel.infra import wiring

    revision, digest = wiring.judge_revision(settings), settings.make_rubric().digest
    drift = store.judge_drift(revision, digest)
    if drift is None:
        raise DeltawheelError("the judge has not drifted, so there is no new level to accept")
    if store.accept_anchor_run(drift.run.run_id, by=by, reason=reason, at=at) is None:
        raise DeltawheelError("somebody else has accepted this level meanwhile; look again")
    if left := store.judge_drift(revision, digest):
        raise DeltawheelError(f"that level is accepted, but the drift still holds: {left.sentence}")


def _told(entry: "AnchorEntry") -> dict[str, Any]:
    run = entry.run
    return {
        "run_id": run.run_id,
        "verdict": run.verdict,
        **run.model_dump(mode="json", exclude={"scores"}),
        "texts": len(run.scores),
        "accepted_at": entry.accepted_at,
        "accepted_by": entry.accepted_by,
        "reason": entry.reason,
    }


def _show(entries: "Sequence[AnchorEntry]", now: "datetime") -> None:
    rows = [
        (
            age(entry.run.ran_at, now),
            entry.run.judge,
            entry.run.verdict.value,
            len(entry.run.scores),
            _furthest(entry.run),
            f"{entry.accepted_by}: {entry.reason}" if entry.accepted_at else "",
        )
        for entry in entries
    ]
    columns = ("ago", "judge", "verdict", "texts", "furthest shift", "accepted by")
    print_table(f"{len(rows)} runs of the anchors", columns, rows)


def _furthest(run: "AnchorRun") -> str:
    """Return the shift that is nearest to its limit, or furthest beyond it."""
    if not run.shifts:
        return ""
    name = max(run.shifts, key=lambda it: abs(run.shifts[it]) / run.limits[it])
    return f"{name} {run.shifts[name]:+.2f}, may be {run.limits[name]:.2f}"
