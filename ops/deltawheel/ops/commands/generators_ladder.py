"""`deltawheel generators ladder` and `deltawheel generators probe`."""

from typing import TYPE_CHECKING

import click

from deltawheel.ops.console import json_option, print_json, print_table, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltawheel.contracts.ladder import Ladder

__all__ = ["ladder", "probe"]


@click.command("ladder")
@click.option("--domain", "domains", multiple=True, help="Only this domain; may be repeated.")
@json_option
@click.pass_context
def ladder(context: click.Context, domains: tuple[str, ...], as_json: bool) -> None:
    """Show how capable each member is in each domain, and what that is known from.

    In logits: one more is e times the odds of a right answer. The prior is what was declared, the
    probe what held-out prompts say, judged what the wheel's own judge says of pairs; the estimate
    is the prior updated as ladder.update_by says. Errors are standard errors.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.ladder_view import ladders, told

    settings = settings_of(context)
    with wiring.reading(settings) as store:
        found = ladders(store, settings, domains)
    if as_json:
        print_json([told(each) for each in found])
    else:
        _print(found)


@click.command("probe")
@click.argument("name", required=False)
@json_option
@click.pass_context
def probe(context: click.Context, name: str | None, as_json: bool) -> None:
    """Probe a member now, or all that stand, and show the ladder that comes of it.

    Each is asked the next probe.num_items held-out prompts of every domain of its own. Their
    servers must run: those of `up` do while the wheel does.
    """
    import asyncio

    from deltawheel.infra import wiring
    from deltawheel.ops.ladder_view import ladders, told
    from deltawheel.ops.probe_trial import probe_members

    settings = settings_of(context)
    probes = asyncio.run(probe_members(settings, name))
    with wiring.reading(settings) as store:
        found = ladders(store, settings, sorted({it.domain for it in probes}))
    if as_json:
        print_json({"probes": probes, "ladders": [told(each) for each in found]})
        return
    for it in probes:
        click.echo(f"{it.reference}: {it.num_right} of {it.num_items} of {it.domain} right")
    _print(found)


def _print(found: "Sequence[Ladder]") -> None:
    from deltawheel.ops.ladder_view import COLUMNS, rows

    for each in found:
        print_table(f"{each.domain} ({each.scale})", COLUMNS, rows(each))
