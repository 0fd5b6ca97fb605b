"""`deltawheel migrate`."""

from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import ConfigError, ExitCode
from deltawheel.ops.console import json_option, print_json, settings_of

if TYPE_CHECKING:
    from deltawheel.contracts.settings import Settings

__all__ = ["command"]


@click.command("migrate")
@click.option(
    "--check",
    "is_check",
    is_flag=True,
    help="Change nothing; exit 1 if an older schema is there, 2 if there is none yet.",
)
@click.option(
    "--down-to",
    "target",
    metavar="REVISION",
    help="Take back what came after this revision, with what only it can hold; `base` is all.",
)
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask before taking anything back.")
@json_option
@click.pass_context
def command(
    context: click.Context, is_check: bool, target: str | None, is_sure: bool, as_json: bool
) -> int:
    """Bring the store's schema to the revision of this deltawheel.

    Starting a wheel does the same; run it before, where services may not change tables. A schema
    that a newer deltawheel has made is refused.
    """
    from deltawheel.infra import wiring
    from deltawheel.infra.store.schema import REVISIONS, needs_upgrade

    settings = settings_of(context)
    if is_check and target is not None:
        raise click.UsageError("--check changes nothing, so give it without --down-to")
    if target not in {None, "base", *REVISIONS}:
        raise click.UsageError(f"--down-to: {target!r} is none of base, {', '.join(REVISIONS)}")
    is_up = target is None and not is_check
    with wiring.changing_schema(settings, must_exist=not is_up) as database:
        found = database.find_revision()
        is_behind = needs_upgrade(found, name=database.name)
        if target is not None:
            if target in REVISIONS and target > (found or ""):
                raise click.UsageError(
                    f"--down-to: {target} lies above {found}, the store's schema"
                )
            _require_stopped(settings)
            if not is_sure:
                click.confirm(f"take {database.name} back to {target}?", abort=True, err=True)
            database.downgrade(target)
        elif is_up and is_behind:
            database.upgrade()
        now = database.find_revision()
    if as_json:
        print_json({"store": str(database.name), "was": found, "is": now, "newest": REVISIONS[-1]})
    elif found == now:
        click.echo(f"the store {database.name} has schema {now or 'base'}, newest {REVISIONS[-1]}")
    else:
        click.echo(f"the store {database.name}: {found or 'base'} -> {now or 'base'}")
    return ExitCode.FAILURE if is_check and is_behind else ExitCode.DONE


def _require_stopped(settings: "Settings") -> None:
    """A wheel that runs would lose tables under its hands.

    Raises:
        ConfigError: the wheel runs on this home.
    """
    from deltawheel.ops.supervisor.runfile import read_run

    if read_run(settings) is not None:
        raise ConfigError(f"wheel {settings.wheel} runs: stop it before you take its schema back")
