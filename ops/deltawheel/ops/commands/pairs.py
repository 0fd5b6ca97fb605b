"""`deltawheel pairs`."""

import click

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.console import json_option, plain, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("pairs")
def command() -> None:
    """Show stored preference pairs."""


@command.command("list")
@click.option("--limit", default=20, show_default=True, help="How many pairs to list.")
@click.option("--after", help="Start behind this pair id; pages go by id.")
@json_option
@click.pass_context
def list_pairs(context: click.Context, limit: int, after: str | None, as_json: bool) -> None:
    """List pairs by id: who wrote chosen and rejected, and both deltas."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        pairs = store.pairs(after=after, limit=limit)
        total = store.count_pairs()
    if as_json:
        print_json(pairs)
        return
    rows = [
        (
            pair.pair_id,
            pair.chosen.trace.generator,
            pair.rejected.trace.generator,
            f"{pair.order_delta:.2f}",
            f"{pair.generator_delta.estimate:+.2f} ± {pair.generator_delta.stderr:.2f}",
            pair.prompt.messages[-1].content[:40],
        )
        for pair in pairs
    ]
    columns = ("pair", "chosen by", "rejected by", "sample delta", "generator delta", "prompt")
    print_table(f"{len(rows)} of {total} pairs", columns, rows)


@command.command("show")
@click.argument("pair_id")
@json_option
@click.pass_context
def show_pair(context: click.Context, pair_id: str, as_json: bool) -> None:
    """Show one pair: both traces, their scores and deltas."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        pair = store.pair(pair_id)
    if pair is None:
        raise DeltawheelError(f"no pair {pair_id} is stored; `deltawheel pairs list` names some")
    if as_json:
        print_json(pair)
        return
    click.echo(f"prompt    {plain(pair.prompt.messages[-1].content)}")
    for side, judged in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        click.echo(f"{side:<9} {plain(judged.trace.text)}   by {plain(judged.trace.generator)}")
    rows = [
        (
            name,
            f"{pair.chosen.judgement.scores[name].mean:.2f}",
            f"{pair.rejected.judgement.scores[name].mean:.2f}",
            f"{delta.delta:+.2f}",
        )
        for name, delta in pair.deltas.items()
    ]
    rows.append(("order_by", "", "", f"{pair.order_delta:+.2f}"))
    print_table("sample deltas", ("dimension", "chosen", "rejected", "delta"), rows)
