"""`deltawheel doctor`."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import ConfigError, ExitCode
from deltawheel.ops.console import json_option, plain, print_json, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltawheel.ops.doctor.examine import Examined

__all__ = ["command"]


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """Look whether everything that a wheel needs is there, running or stopped; changes nothing.

    Each line is ok, a warning or a failure; behind the arrow stands the one thing to do. Servers
    that settings name are really asked, and given a few seconds. Exit 1 if there is a failure.
    """
    from deltawheel.ops.doctor.examine import examine, site_of

    try:
        settings = settings_of(context)
    except ConfigError as error:
        examined = _faults(str(error))
    else:
        examined = examine(site_of(settings, context.obj["config"]))
    _show(examined, as_json=as_json)
    has_failed = any(one.is_failure for one in examined)
    return ExitCode.FAILURE if has_failed else ExitCode.DONE


def _faults(sentences: str) -> "list[Examined]":
    """Return what is wrong with settings; nothing else can be looked at without them."""
    from deltawheel.ops.doctor.examine import Examined
    from deltawheel.ops.doctor.findings import failure

    todo = "put this right, then look again: nothing else can be looked at before"
    return [
        Examined(check="settings", finding=failure(sentence, todo))
        for sentence in sentences.splitlines()
    ]


def _show(examined: "Sequence[Examined]", *, as_json: bool) -> None:
    from deltawheel.contracts.addresses import without_password
    from deltawheel.ops.doctor.findings import Level

    rows = [
        {
            "check": one.check,
            "level": one.finding.level.value,
            "found": without_password(one.finding.found),
            "todo": one.finding.todo,
        }
        for one in examined
    ]
    counts = Counter(one.finding.level for one in examined)
    if as_json:
        print_json({"findings": rows, "is_healthy": not counts[Level.FAILURE]})
        return
    for row in rows:
        todo = f" → {row['todo']}" if row["todo"] else ""
        click.echo(plain(f"{row['level']:<8} {row['check']:<9} {row['found']}{todo}"))
    click.echo(", ".join(f"{counts[level]} {level.value}" for level in Level))
