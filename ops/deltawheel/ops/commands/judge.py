"""`deltawheel judge`."""

import asyncio
from typing import Any

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import field, json_option, plain, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("judge")
def command() -> None:
    """Look at what the judge is asked and what it finds."""


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
