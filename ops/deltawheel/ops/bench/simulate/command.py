"""`deltawheel bench simulate`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, print_json, print_table

if TYPE_CHECKING:
    from deltawheel.ops.bench.simulate.fleet import Run, Tally
    from deltawheel.ops.bench.simulate.plan import CrashPoint
    from deltawheel.ops.bench.simulate.run import Report

__all__ = ["command"]

_SAY_EVERY_S = 2.0
_SHOWN = 20
_SEEDS = {"faults": 1_000, "crashes": 10, "days": 1}


@click.command("simulate")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="How many seeds; if unset 1000 of faults, 10 of crashes, 1 of days.",
)
@click.option("--from", "first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Play only this one, and show all that happened.")
@click.option(
    "--crash-at", help="With --seed: nothing goes wrong but one death, at N:before or N:after."
)
@click.option(
    "--workload",
    type=click.Choice(list(_SEEDS)),
    default="faults",
    show_default=True,
    help="faults: whatever the seed draws; crashes: one death on either side of every effect; "
    "days: nightly cycles, promotions, rollbacks, drift, a restart and an outage a day.",
)
@click.option(
    "--days", default=30, show_default=True, type=click.IntRange(min=1), help="How many of them."
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; as many as cores if unset.")
@json_option
def command(
    seeds: int | None,
    first: int,
    seed: int | None,
    crash_at: str | None,
    workload: str,
    days: int,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Play the whole wheel from seeds, with faults, in virtual time.

    Every seed is a run of its own: prompts, models, crashes, outages, zombies and clocks all come
    from it, and the same seed goes the same way again, event by event. Once the faults are over
    everything must come to its end: each prompt with exactly the outcome that it has without
    faults, each pair stored once, nothing lost. Exit code 1 names the runs for which that is not
    so, and how to see them again.
    """
    from deltawheel.ops.bench.simulate.fleet import Run, crash_runs, silence

    chosen = range(first, first + (seeds or _SEEDS[workload])) if seed is None else [seed]
    with silence():
        if workload == "days":
            return _live(chosen, days, as_json=as_json)
        if seed is not None:
            return _replay(Run(seed, _parse_crash(crash_at)), as_json=as_json)
        if crash_at:
            raise click.UsageError("--crash-at needs --seed")
        is_crashes = workload == "crashes"
        runs = [run for it in chosen for run in (crash_runs(it) if is_crashes else [Run(it)])]
        return _play(runs, jobs=jobs, as_json=as_json)


def _parse_crash(crash_at: str | None) -> "CrashPoint | None":
    from deltawheel.ops.bench.simulate.plan import CrashPoint

    try:
        return CrashPoint.parse(crash_at) if crash_at else None
    except ValueError as error:
        raise click.UsageError(f"--crash-at {crash_at!r}: give N:before or N:after") from error


def _live(seeds: Sequence[int], days: int, *, as_json: bool) -> int:
    from deltawheel.infra import wiring

    now_s = wiring.system_clock().monotonic
    results = [_live_one(seed, days, now_s=now_s, as_json=as_json) for seed in seeds]
    if as_json:
        print_json(results)
    is_clean = not any(result["violations"] for result in results)
    return ExitCode.DONE if is_clean else ExitCode.FAILURE


def _live_one(
    seed: int, days: int, *, now_s: Callable[[], float], as_json: bool
) -> dict[str, object]:
    from deltawheel.ops.bench.simulate.days.run import simulate_days

    began_s = now_s()

    def say(day: int) -> None:
        click.echo(f"seed {seed}: {day}/{days} days, {now_s() - began_s:.0f} s", err=True)

    report = simulate_days(seed, days=days, at_day=say)
    result = {**asdict(report), "took_s": round(now_s() - began_s, 1)}
    if not as_json:
        print_table(f"seed {seed}", ("what", "value"), list(result.items()))
    for violation in report.violations[:_SHOWN]:
        click.echo(f"seed {seed}: {violation}", err=True)
    return result


def _replay(run: "Run", *, as_json: bool) -> int:
    from deltawheel.ops.bench.simulate.run import simulate

    report = simulate(run.seed, plan=run.plan)
    if as_json:
        print_json({**_told(report), "violations": report.violations, "trace": report.lines})
    else:
        for line in report.lines:
            click.echo(line)
        print_table(f"seed {run.seed}", ("what", "value"), list(_told(report).items()))
    for violation in report.violations:
        click.echo(f"violated: {violation}", err=True)
    return ExitCode.DONE if report.is_clean else ExitCode.FAILURE


def _told(report: "Report") -> dict[str, object]:
    return {
        "seed": report.seed,
        "faults": ", ".join(sorted(report.plan.faults)) or "none",
        "prompts": report.plan.num_prompts,
        "effects": report.num_effects,
        "deaths": report.num_deaths,
        "redelivered": report.num_redelivered,
        "virtual_s": round(report.virtual_s, 3),
        "digest": report.digest,
    }


def _play(runs: "Sequence[Run]", *, jobs: int | None, as_json: bool) -> int:
    from deltawheel.infra import wiring
    from deltawheel.ops.bench.simulate.fleet import play_many

    clock = wiring.system_clock()
    began_s = clock.monotonic()
    say = _progress(len(runs), clock.monotonic)
    tally = play_many(runs, jobs=jobs, at_progress=say)
    result = _summed(tally, clock.monotonic() - began_s)
    if as_json:
        print_json({**result, "failed": _failures(tally)})
    else:
        print_table("simulation", ("what", "value"), list(result.items()))
    for run, violations in list(tally.failed.items())[:_SHOWN]:
        click.echo(f"{run.options}: {violations[0]}", err=True)
        click.echo(f"  see it again: deltawheel bench simulate {run.options}", err=True)
    return ExitCode.DONE if not tally.failed else ExitCode.FAILURE


def _progress(num_runs: int, now_s: Callable[[], float]) -> "Callable[[Tally], None]":
    began_s = said_s = now_s()

    def say(tally: "Tally") -> None:
        nonlocal said_s
        if now_s() - said_s < _SAY_EVERY_S and tally.num_runs < num_runs:
            return
        said_s = now_s()
        rate = tally.num_runs / (said_s - began_s)
        failed = len(tally.failed)
        click.echo(f"{tally.num_runs}/{num_runs} runs, {failed} failed, {rate:.1f}/s", err=True)

    return say


def _summed(tally: "Tally", took_s: float) -> dict[str, object]:
    return {
        "runs": tally.num_runs,
        "failed_runs": len(tally.failed),
        **{name: tally.counts[name] for name in ("prompts", "effects", "deaths", "redelivered")},
        "virtual_hours": round(tally.virtual_s / 3_600, 1),
        "took_s": round(took_s, 1),
        "runs_per_s": round(tally.num_runs / took_s, 1),
    }


def _failures(tally: "Tally") -> list[dict[str, object]]:
    return [
        {"seed": run.seed, "replay": f"deltawheel bench simulate {run.options}", "violations": it}
        for run, it in tally.failed.items()
    ]
