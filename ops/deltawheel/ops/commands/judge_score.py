"""`deltawheel judge score`."""

import asyncio
from pathlib import Path

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, plain, print_json, settings_of

__all__ = ["score"]

_SHOWN_FAULTS = 20


@click.command("score")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the scores go; lines that it has are not judged again.",
)
@click.option(
    "--once",
    "is_once",
    is_flag=True,
    help="Ask for each line once: a judge that is busy is a reason not to be judged.",
)
@json_option
@click.pass_context
def score(context: click.Context, file: Path, out: Path, is_once: bool, as_json: bool) -> int:
    """Judge every line of FILE and write its scores to OUT; the store is neither read nor written.

    Lines are as for `deltawheel judge try`. OUT gets a line of JSON for each, as it is judged, with
    its number, the judge's revision and scores, or a fault. Killed and run again, it goes on where
    it was; take lines with a fault out of OUT to have them judged again. Exit code 1 if a line has
    no scores.
    """
    from deltawheel.ops.running import as_it_runs
    from deltawheel.ops.scoring import score_file

    settings = as_it_runs(settings_of(context))
    with file.open(encoding="utf-8", errors="replace") as lines:
        scored = asyncio.run(score_file(lines, out, settings, is_once=is_once, say=_say))
    if as_json:
        print_json(scored.told())
    else:
        for line, reason in sorted(scored.faults.items())[:_SHOWN_FAULTS]:
            _say(f"line {line}: {reason}")
        click.echo(
            f"{scored.num_lines} lines: {scored.num_looked_at} looked at now, {scored.num_before} "
            f"before; {len(scored.faults)} have a fault instead of scores"
        )
    return ExitCode.FAILURE if scored.faults else ExitCode.DONE


def _say(text: str) -> None:
    click.echo(plain(text), err=True)
