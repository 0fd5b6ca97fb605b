"""`deltawheel init`."""

from pathlib import Path

import click

__all__ = ["command"]

_DEFAULT = Path("deltawheel.yaml")


@click.command("init")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace a file that exists; the old one is kept.")
@click.pass_context
def command(context: click.Context, file: Path | None, force: bool) -> None:
    """Write a settings file with every key, its default and what it does; asks nothing.

    Unset, FILE is what --config names, or ./deltawheel.yaml. Only this user may read it.
    """
    from deltawheel.infra.settings_file import write_commented_settings

    path = file or context.obj["config"] or _DEFAULT
    aside = write_commented_settings(path, keeps_old=force)
    if aside is not None:
        click.echo(f"what was there is now {aside}")
    option = "" if path == _DEFAULT else f" --config {path}"
    click.echo(f"{path}: every key with its default; it runs as it is, change what you need")
    click.echo(f"`deltawheel{option} doctor` looks whether everything that it names is there")
    click.echo(f"`deltawheel{option} up` runs the wheel until Ctrl-C")
