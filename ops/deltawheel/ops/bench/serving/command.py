"""`deltawheel bench serving`."""

import json
from pathlib import Path

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, print_json

__all__ = ["command"]

_PARTS = ("smollm2", "sandbox", "whole-sandbox", "prefix", "cpu")


@click.command("serving")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(_PARTS),
    help="What to measure; may be given more than once. All, if left out.",
)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option(
    "--prompts",
    default=80,
    show_default=True,
    type=click.IntRange(8),
    help="Prompts of one run of the language model; the sandbox's model gets ten times as many.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of another language model than SmolLM2.",
)
@click.option(
    "--home",
    default=Path("var/bench/serving"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the wheels' state and the unpacked model.",
)
@json_option
def command(
    *,
    parts: tuple[str, ...],
    repeats: int,
    prompts: int,
    model: Path | None,
    home: Path,
    as_json: bool,
) -> int:
    """Measure what share of a model server's pace the wheel keeps, and what the judge reuses.

    Prompts go through a wheel on a real vLLM; then vLLM's own benchmark client asks the same
    server the same, with the lengths that the wheel's traces have, and so on by turns. A share is
    the wheel's tokens per second, of traces that are stored, over the client's. 1 says that the
    wheel costs the server nothing; above 1, the client does more with each token than we do, for
    it reads them one by one. The last line is one JSON object.
    """
    from deltawheel.ops.bench.serving.measures import Plan, measure
    from deltawheel.ops.bench.serving.report import print_report, summary

    def say(text: str) -> None:
        click.echo(text, err=True)

    plan = Plan(
        parts=parts or _PARTS,
        home=home,
        model=model.resolve() if model else None,
        repeats=repeats,
        num_language=prompts,
        num_sandbox=10 * prompts,
        num_judged=max(8, prompts // 2),
        num_stub=20 * prompts,
    )
    figures = measure(plan, say=say)
    if as_json:
        print_json(summary(figures))
        return ExitCode.DONE
    print_report(figures)
    click.echo(json.dumps(summary(figures)))
    return ExitCode.DONE
