"""`deltawheel versions`."""

import click

from deltawheel.ops.console import json_option, print_json, print_table, settings_of

__all__ = ["command"]


@click.command("versions")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List registered versions, as MLflow holds them, and who is champion."""
    from deltawheel.infra import wiring

    settings = settings_of(context)
    versions = wiring.open_registry(settings).versions()
    if as_json:
        print_json([version.model_dump(mode="json") for version in versions])
        return
    if not versions:
        click.echo(f"{settings.registered_model}: no version yet; the champion is the base model")
        return
    rows = [
        (row.version, ", ".join(row.aliases), row.cycle_id, row.registered_at) for row in versions
    ]
    print_table(settings.registered_model, ("version", "aliases", "cycle", "registered"), rows)
