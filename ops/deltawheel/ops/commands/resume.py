"""`deltawheel resume`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.console import age, json_option, print_json, print_table, settings_of
from deltawheel.ops.operator import by_option

if TYPE_CHECKING:
    from deltawheel.contracts.interruptions import Halt

__all__ = ["command"]


@click.command("resume")
@click.option("--service", help="Only what this service has halted.")
@click.option("--topic", help="Only partitions of this topic, with the wheel's prefix or without.")
@click.option("--partition", type=click.IntRange(min=0), help="Only partitions of this number.")
@by_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    service: str | None,
    topic: str | None,
    partition: int | None,
    by: str,
    as_json: bool,
) -> None:
    """Go on with partitions that were halted because of too many invalid records.

    That happens when records are invalid though the store knows what they speak of: put the
    deployment right first. Services notice within a second or two; what became a dead letter
    before is replayed with `deltawheel dead-letters replay`. Without options, all are resumed.
    """
    from deltawheel.infra import wiring

    settings = settings_of(context)
    topics = {topic, f"{settings.wheel}.{topic}"}
    now = wiring.system_clock().now()
    with wiring.reading(settings) as store:
        halts = store.halts()
        chosen = [
            halt
            for halt in halts
            if service in (None, halt.service)
            and (topic is None or halt.topic in topics)
            and partition in (None, halt.partition)
        ]
        if halts and not chosen:
            raise DeltawheelError(f"none of these is meant: {_names(halts)}; choose one of them")
        resumed = store.resume_halts(chosen, by=by, at=now)
    if as_json:
        print_json([asdict(halt) for halt in resumed])
    elif not resumed:
        click.echo("no partition is halted")
    else:
        columns = ("service", "topic", "partition", "offset", "halted", "because")
        rows = [(*_place(halt), age(halt.halted_at, now), halt.reason) for halt in resumed]
        print_table("resumed", columns, rows)


def _place(halt: "Halt") -> tuple[str, str, int, int]:
    return halt.service, halt.topic, halt.partition, halt.offset


def _names(halts: Sequence["Halt"]) -> str:
    return ", ".join(f"{each.service} {each.topic}:{each.partition}" for each in halts)
