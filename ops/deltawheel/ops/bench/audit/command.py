"""`deltawheel bench audit`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, print_json, print_table

__all__ = ["command"]


@click.command("audit")
@click.option(
    "--prompts",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Finished prompts in the store; a million take 13 GB of disk.",
)
@click.option(
    "--store",
    "url",
    help="An empty database to fill instead of a file of SQLite's, such as "
    "postgresql://user@host/name.",
)
@click.option(
    "--repeat",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="How often the audit is run; the first finds a cold cache.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, prompts: int, url: str | None, repeat: int, as_json: bool
) -> int:
    """Fill a store with finished work, and measure how long the audit takes over it.

    The rows are what the wheel itself writes: of a hundred prompts, 75 end paired, 20 tied, 2
    quarantined, 2 dead-lettered, and one is in flight. The audit is the command that an operator
    runs, its start included. Exit code 1 if it is not clean.
    """
    from deltawheel.ops.bench.audit.measure import measure

    with ExitStack() as stack:
        home = context.obj["home"] or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = measure(
            home.resolve(),
            url=url,
            num_prompts=prompts,
            repeat=repeat,
            progress=lambda text: click.echo(text, err=True),
        )
    if as_json:
        print_json(figures)
    else:
        print_table("audit", ("figure", "value"), list(figures.items()))
    return ExitCode.DONE if figures["is_clean"] else ExitCode.FAILURE
