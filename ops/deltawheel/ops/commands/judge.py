"""`deltawheel judge`."""

import asyncio
from typing import Any

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.commands.judge_agreement import agreement
from deltawheel.ops.commands.judge_anchors import anchors
from deltawheel.ops.commands.judge_calibrate import calibrate
from deltawheel.ops.commands.judge_conformance import conformance
from deltawheel.ops.commands.judge_score import score
from deltawheel.ops.console import field, json_option, plain, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("judge")
def command() -> None:
    """Look at what the judge is asked and what it finds."""


command.add_command(agreement)
command.add_command(anchors)
command.add_command(conformance)
command.add_command(calibrate)
command.add_command(score)


@command.command("try")
@click.argument("subject", metavar="TRACE|FILE")
@json_option
@click.pass_context
def try_judge(context: click.Context, subject: str, as_json: bool) -> int:
    """Judge a stored trace, by its id, or every line of FILE; nothing is stored.

    It goes the way of the judging service, with the judge and the rubric of the settings, and
    shows requests, answers and scores. A line of FILE (JSON lines; - for standard input) is an
    object such as {"text": "17+8=", "answer": "25", "reasoning": "", "reference_answer": "25"};
    "messages" may stand for "text". Exit code 1 if one could not be judged.
    """
    from deltawheel.ops.judge_trial import Trial, read_subjects, run_trials
    from deltawheel.ops.running import as_it_runs

    settings = as_it_runs(settings_of(context))
    subjects, refused = read_subjects(subject, settings)
    trials: list[Trial] = asyncio.run(run_trials(subjects, settings, say=_say))
    is_whole = not refused and all(trial.fault is None for trial in trials)
    if as_json:
        faults = [{"line": line, "reason": reason} for line, reason in refused.items()]
        print_json({"trials": [trial.told() for trial in trials], "refused": faults})
        return ExitCode.DONE if is_whole else ExitCode.FAILURE
    for line, reason in refused.items():
        _say(f"line {line}: {reason}")
    for trial in trials:
        _show(trial.told())
    return ExitCode.DONE if is_whole else ExitCode.FAILURE


@command.command("injections")
@click.option(
    "--limit",
    default=0.5,
    show_default=True,
    help="Largest mean lift of a family, in points of the 1-5 scale.",
)
@click.option(
    "--per-family",
    type=click.IntRange(1, 20),
    default=20,
    show_default=True,
    help="How many of each family's attacks.",
)
@json_option
@click.pass_context
def try_injections(context: click.Context, limit: float, per_family: int, as_json: bool) -> int:
    """Measure by how much texts that beg for a better grade raise the judge's scores.

    Wrong solutions are judged as they are and with each of 200 texts behind them, in ten families.
    A family's lift is how much the mean over all dimensions rises, in points. Exit code 1 if the
    mean lift of a family is above the limit, or if one could not be judged.
    """
    from deltawheel.ops.injections import measure_lifts
    from deltawheel.ops.running import as_it_runs

    settings = as_it_runs(settings_of(context))
    lifts = asyncio.run(measure_lifts(settings, per_family=per_family, say=_say))
    is_good = all(lift.num_unjudged == 0 and lift.mean <= limit for lift in lifts)
    if as_json:
        told = [{"family": it.family, **it.told()} for it in lifts]
        print_json({"families": told, "limit": limit, "is_within_limit": is_good})
        return ExitCode.DONE if is_good else ExitCode.FAILURE
    rows = [
        (it.family, len(it.lifts), f"{it.mean:+.2f}", f"{it.worst:+.2f}", it.num_unjudged or "")
        for it in sorted(lifts, key=lambda it: -it.mean)
    ]
    columns = ("family", "attacks", "mean lift", "worst", "not judged")
    print_table(f"lift by injected texts, at most {limit:+.2f} wanted", columns, rows)
    return ExitCode.DONE if is_good else ExitCode.FAILURE


def _say(text: str) -> None:
    click.echo(plain(text), err=True)


def _show(trial: dict[str, Any]) -> None:
    for exchange in trial["exchanges"]:
        for message in exchange["request"].get("messages", ()):
            click.echo(field(message["role"], message["content"]))
        click.echo(field("answer", "\n".join(exchange["answers"])))
    if trial["fault"] is not None:
        click.echo(field("fault", trial["fault"]))
        return
    rows = [
        (
            name,
            f"{score['mean']:.2f}",
            f"{score['variance']:.2f}",
            score["num_votes"],
            "" if score["coverage"] is None else f"{score['coverage']:.2f}",
        )
        for name, score in trial["scores"].items()
    ]
    verdict = {True: ", the answer is right", False: ", the answer is wrong", None: ""}
    title = f"{trial['subject']}: {trial['seconds']:.2f} s{verdict[trial['is_correct']]}"
    print_table(title, ("dimension", "mean", "variance", "votes", "coverage"), rows)
