"""`deltawheel generators`."""

import click

from deltawheel.ops.console import json_option, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("generators")
def command() -> None:
    """Show the pool: the models that write traces."""


@command.command("list")
@json_option
@click.pass_context
def list_generators(context: click.Context, as_json: bool) -> None:
    """List the members, most capable first, with their exact revisions."""
    from deltawheel.contracts.pool import Pool
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        pool = Pool.from_log(store.pool_log())
    if as_json:
        print_json(pool.ranked())
        return
    rows = [
        (
            member.name,
            member.model,
            member.revision[:23],
            f"{member.capability:g} ± {member.capability_stderr:g}",
            member.lineage_depth,
            "promoted" if member.name in pool.promoted else "declared",
        )
        for member in pool.ranked()
    ]
    columns = ("generator", "model", "revision", "capability", "lineage", "came by")
    print_table(f"{len(rows)} generators", columns, rows)
