"""`deltawheel bench stream`."""

import json
import os
from pathlib import Path
from typing import Final

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, print_json

__all__ = ["command"]

_PARTS: Final = ("throughput", "http", "steady", "scaling")


@click.command("stream")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(_PARTS),
    help="Measure only this part; may be given again. Unset, all of them.",
)
@click.option(
    "--pairs",
    default=10_000,
    show_default=True,
    help="Pairs of each run.",
    type=click.IntRange(min=10),
)
@click.option(
    "--rival-pairs",
    default=1_000,
    show_default=True,
    help="Pairs of each of distilabel's runs.",
    type=click.IntRange(min=10),
)
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    help="Runs of which the median is told.",
    type=click.IntRange(min=1),
)
@click.option("--rate", default=200.0, show_default=True, help="Prompts/s of the steady stream.")
@click.option("--steady-seconds", default=60.0, show_default=True, help="How long that lasts.")
@click.option("--soak-minutes", type=float, help="Instead: so many minutes, for the memory curve.")
@click.option(
    "--broker-memory-mb",
    type=click.IntRange(min=100),
    help="The embedded broker's size limit in the steady stream, to see it restarted at it.",
)
@click.option("--no-rival", is_flag=True, help="Leave distilabel out.")
@click.option(
    "--home",
    default=Path("var/bench/stream"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the wheels' state; on the disk that is to be measured.",
)
@click.option(
    "--rival-env",
    default=Path("var/bench/distilabel"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of distilabel's environment; made if it is not there.",
)
@json_option
def command(
    *,
    parts: tuple[str, ...],
    pairs: int,
    rival_pairs: int,
    repeats: int,
    rate: float,
    steady_seconds: float,
    soak_minutes: float | None,
    broker_memory_mb: int | None,
    no_rival: bool,
    home: Path,
    rival_env: Path,
    as_json: bool,
) -> int:
    """Measure the stream, with models and a judge that cost no time.

    Prompts go in through the gateway's HTTP API; counted is what is stored, deduplicated and
    checked by Great Expectations. Broker, services and SQLite are real; only models and judge
    answer at once, in process or (part http) from a stub server on this machine, where the judge is
    asked once a trace. distilabel is installed into an environment of its own and makes pairs of
    such prompts by turns with us. Where KAFKA_HOME names an Apache Kafka, the stream is measured
    through that too. The last line is one JSON object.
    """
    from deltawheel.ops.bench.stream.measures import Plan, measure
    from deltawheel.ops.bench.stream.report import print_report, summary

    def say(text: str) -> None:
        click.echo(text, err=True)

    plan = Plan(
        parts=parts or _PARTS,
        home=home,
        rival_folder=rival_env.resolve(),
        num_pairs=pairs,
        num_rival_pairs=rival_pairs,
        repeats=repeats,
        rate=rate,
        steady_s=60 * soak_minutes if soak_minutes else steady_seconds,
        with_kafka="KAFKA_HOME" in os.environ,
        with_rival=not no_rival,
        broker_memory_mb=broker_memory_mb,
    )
    say(f"load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    figures = measure(plan, say=say)
    if as_json:
        print_json(summary(figures))
        return ExitCode.DONE
    print_report(figures)
    click.echo(json.dumps(summary(figures)))
    return ExitCode.DONE
