"""`deltawheel generators`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltawheel.ops.commands.generators_ladder import ladder, probe
from deltawheel.ops.console import field, json_option, print_json, print_table, settings_of
from deltawheel.ops.member_options import make_member, member_options
from deltawheel.ops.operator import by_option, reason_option

if TYPE_CHECKING:
    from deltawheel.contracts.generator import PoolEvent
    from deltawheel.contracts.membership import PoolChange

__all__ = ["command"]

_force_option = click.option(
    "--force", "is_forced", is_flag=True, help="Even if fewer than two generators then stand."
)


@click.group("generators")
def command() -> None:
    """Show and change the pool: the models that write traces.

    Changes are lines of the pool's log, with who and why; a wheel that runs takes them up within
    seconds.
    """


command.add_command(ladder)
command.add_command(probe)


@command.command("list")
@json_option
@click.pass_context
def list_generators(context: click.Context, as_json: bool) -> None:
    """List the members, most capable first, with their exact revisions."""
    from deltawheel.infra import wiring
    from deltawheel.ops.pool_view import COLUMNS, PoolView

    with wiring.reading(settings_of(context)) as store:
        view = PoolView.of(store, at=wiring.system_clock().now())
    members = view.pool.ranked()
    if as_json:
        print_json([view.told(member) for member in members])
        return
    print_table(f"{len(members)} generators", COLUMNS, [view.row(it) for it in members])


@command.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_generator(context: click.Context, name: str, as_json: bool) -> None:
    """Show one generator, in the pool or gone, and all that the pool's log says of it."""
    from deltawheel.contracts.membership import history_of
    from deltawheel.infra import wiring
    from deltawheel.ops.pool_view import PoolView

    with wiring.reading(settings_of(context)) as store:
        view = PoolView.of(store, at=wiring.system_clock().now())
    history = history_of(view.log, name)
    is_member = name in view.pool.members
    told = view.told(view.pool.members.get(name, history[-1].generator))
    if as_json:
        print_json({**told, "is_member": is_member, "log": history})
        return
    for key, value in {**told, "is_member": is_member}.items():
        if value is not None:
            click.echo(field(f"{key}: ", str(value)))
    _print_log(history)


@command.command("log")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(min=1), help="How many events."
)
@json_option
@click.pass_context
def show_log(context: click.Context, limit: int, as_json: bool) -> None:
    """Show the newest events of the pool's log: who came, went and left for a while, and why."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        log = store.pool_log()[-limit:]
    if as_json:
        print_json(log)
    else:
        _print_log(log)


@command.command("add")
@click.argument("name", required=False)
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML or JSON with the keys of one generator, as `generators:` of the settings holds it.",
)
@member_options
@click.option("--replace", "is_replacing", is_flag=True, help="Take the place of a member.")
@by_option
@reason_option
@json_option
@click.pass_context
def add(
    context: click.Context,
    /,
    name: str | None,
    file: Path | None,
    is_replacing: bool,
    by: str,
    reason: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401
) -> None:
    """Take a model into the pool: on an endpoint, or an adapter of one of our servers.

    Its exact revision is worked out as for members that the settings declare. A key's variable
    must be set where the wheel runs.
    """
    from deltawheel.infra.declared_pool import is_unpinned

    generator = make_member(name, file, given, settings_of(context))
    if is_unpinned(generator):
        click.echo(
            f"warning: no revision is given, so a change of {generator.model!r} would go "
            "unnoticed; give --revision",
            err=True,
        )
    _change(
        context,
        lambda change, log: change.add(log, generator, is_replacing=is_replacing),
        by=by,
        reason=reason,
        as_json=as_json,
    )


@command.command("drain")
@click.argument("name")
@_force_option
@by_option
@reason_option
@json_option
@click.pass_context
def drain(
    context: click.Context, name: str, is_forced: bool, by: str, reason: str, as_json: bool
) -> None:
    """Deal nothing more to a member; what was dealt to it goes on."""
    _change(
        context,
        lambda change, log: change.drain(log, name, is_forced=is_forced),
        by=by,
        reason=reason,
        as_json=as_json,
    )


@command.command("retire")
@click.argument("name")
@_force_option
@by_option
@reason_option
@json_option
@click.pass_context
def retire(
    context: click.Context, name: str, is_forced: bool, by: str, reason: str, as_json: bool
) -> None:
    """End a member: its adapter is unloaded once nothing that was dealt to it is open."""
    _change(
        context,
        lambda change, log: change.retire(log, name, is_forced=is_forced),
        by=by,
        reason=reason,
        as_json=as_json,
    )


@command.command("return")
@click.argument("name")
@by_option
@reason_option
@json_option
@click.pass_context
def bring_back(context: click.Context, name: str, by: str, reason: str, as_json: bool) -> None:
    """Take a drained or retired member back, as it was."""
    _change(
        context,
        lambda change, log: change.bring_back(log, name),
        by=by,
        reason=reason,
        as_json=as_json,
    )


def _change(
    context: click.Context,
    make: "Callable[[PoolChange, Sequence[PoolEvent]], PoolEvent]",
    *,
    by: str,
    reason: str,
    as_json: bool,
) -> None:
    from deltawheel.contracts.membership import PoolChange
    from deltawheel.infra import wiring

    change = PoolChange(
        by=by,
        why=reason,
        asking=wiring.system_random().token(),
        at=wiring.system_clock().now(),
    )
    with wiring.reading(settings_of(context)) as store:
        event = make(change, store.pool_log())
        store.add_pool_events([event])
    if as_json:
        print_json(event)
    else:
        click.echo(f"{event.generator.reference} is {event.kind} {event.reason}")


def _print_log(log: "Sequence[PoolEvent]") -> None:
    rows = [
        (
            event.at.isoformat(timespec="seconds"),
            event.kind,
            event.generator.reference,
            event.reason,
        )
        for event in log
    ]
    print_table("log", ("at", "what", "generator", "why"), rows)
