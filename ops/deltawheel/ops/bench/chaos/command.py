"""`deltawheel bench chaos`."""

import json
from pathlib import Path

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, print_json, print_table

__all__ = ["command"]


@click.command("chaos")
@click.option(
    "--kills",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="SIGKILLs of services, guards and the supervisor; broker and database come on top.",
)
@click.option("--seed", default=0, show_default=True, help="Of what is done, and in which order.")
@click.option(
    "--garbage",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Messages that nobody can decode, put on the topic of traces every hundred kills.",
)
@click.option(
    "--members",
    default=12,
    show_default=True,
    type=click.IntRange(min=0),
    help="Further members of consumer groups that come and go, every hundred kills.",
)
@click.option("--keep", is_flag=True, help="Keep the wheel's state, even if all is well.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    kills: int,
    seed: int,
    garbage: int,
    members: int,
    keep: bool,
    as_json: bool,
) -> int:
    """Kill the processes of a real wheel again and again; nothing may be lost or stored twice.

    Runs `deltawheel up` on Apache Kafka (KAFKA_HOME) and PostgreSQL, with six services and a
    faulty model server, and keeps prompts in flight while processes are killed: at random moments,
    at every failpoint, the supervisor, the broker and the database among them. Then the faults
    end, and every prompt must have its outcome; with expiry off, what is open is lost.

    Writes report.md and report.json into its home (var/chaos, or FOLDER with `deltawheel --home
    FOLDER bench chaos`), and ends with one JSON object. Exit code 0: nothing lost, nothing double,
    nothing left running; 1: otherwise; 2: wrong folder or settings, or Kafka or PostgreSQL is not
    there; 130: stopped by Ctrl-C.
    """
    from deltawheel.ops.bench.chaos.run import ChaosPlan, run_chaos

    home = context.obj["home"] or Path("var/chaos")
    plan = ChaosPlan(
        home=home,
        num_kills=kills,
        seed=seed,
        garbage_size=garbage,
        members_size=members,
        keeps_state=keep,
    )
    result = run_chaos(plan)
    if as_json:
        print_json(result.as_json())
    else:
        print_table(f"chaos; reports in {home}", ("what", "figure"), result.rows())
        click.echo(json.dumps(result.as_json()))
    for complaint in result.complaints():
        click.echo(f"chaos: {complaint}", err=True)
    return ExitCode.DONE if result.is_clean else ExitCode.FAILURE
