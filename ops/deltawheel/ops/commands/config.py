"""`deltawheel config`."""

from pathlib import Path

import click

from deltawheel.contracts.errors import ExitCode
from deltawheel.ops.console import json_option, plain, print_json, settings_of

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Check, show and explain settings."""


@command.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@click.pass_context
def check(context: click.Context, file: Path | None, as_json: bool) -> int:
    """Name every wrong key of a settings file, with what would be valid; then exit 2."""
    from deltawheel.infra.declared_pool import settings_doubts
    from deltawheel.infra.settings_file import load_settings, settings_faults
    from deltawheel.ops.preflight import file_faults

    path = file or context.obj["config"]
    if path is None:
        raise click.UsageError("name a file, or run where deltawheel.yaml lies")
    faults, warnings = settings_faults(path), list[str]()
    if not faults:
        settings = load_settings(path)
        faults, warnings = file_faults(settings), settings_doubts(settings)
    if as_json:
        print_json({"file": str(path), "faults": faults, "warnings": warnings})
    else:
        for warning in warnings:
            click.echo(f"{path}: warning: {plain(warning)}", err=True)
        for fault in faults:
            click.echo(f"{path}: {plain(fault)}", err=True)
        if not faults:
            click.echo(f"{path}: valid")
    return ExitCode.USAGE if faults else ExitCode.DONE


@command.command("show")
@json_option
@click.pass_context
def show(context: click.Context, as_json: bool) -> None:
    """Print the settings in force: the file's, with the environment above them; no passwords."""
    import yaml

    from deltawheel.infra.settings_file import shown_settings

    settings = shown_settings(settings_of(context))
    if as_json:
        print_json(settings)
    else:
        click.echo(yaml.safe_dump(settings, sort_keys=False), nl=False)


@command.command("template")
def template() -> None:
    """Print a settings file with every key, its default and what it does."""
    from deltawheel.contracts.settings.template import settings_template

    click.echo(settings_template(), nl=False)
