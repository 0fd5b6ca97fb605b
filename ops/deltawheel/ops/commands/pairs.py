"""`deltawheel pairs`."""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

import click

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.console import (
    field,
    json_option,
    plain,
    print_json,
    print_table,
    settings_of,
)
from deltawheel.ops.operator import by_option, reason_option

__all__ = ["command"]


@click.group("pairs")
def command() -> None:
    """Show stored preference pairs, and have those in quarantine checked again."""


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
    click.echo(field("prompt", pair.prompt.messages[-1].content))
    for side, judged in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        click.echo(field(side, f"{judged.trace.text}   by {judged.trace.generator}"))
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


@command.command("quarantined")
@click.option("--limit", default=20, show_default=True, help="How many pairs to list.")
@click.option("--after", help="Start behind this pair id; pages go by id.")
@json_option
@click.pass_context
def list_quarantined(context: click.Context, limit: int, after: str | None, as_json: bool) -> None:
    """List pairs that failed a data-quality check, with the checks that they failed."""
    from deltawheel.infra import wiring

    with wiring.reading(settings_of(context)) as store:
        held = store.quarantined(after=after, limit=limit)
    if as_json:
        print_json(held)
        return
    rows = [
        (it.pair.pair_id, ", ".join(it.expectations), it.pair.prompt.messages[-1].content[:40])
        for it in held
    ]
    print_table(f"{len(rows)} pairs in quarantine", ("pair", "failed checks", "prompt"), rows)


@command.command("release")
@click.argument("pair_ids", metavar="PAIR_ID...", nargs=-1, required=True)
@by_option
@reason_option
@json_option
@click.pass_context
def release(
    context: click.Context, pair_ids: Sequence[str], by: str, reason: str, as_json: bool
) -> None:
    """Have quarantined pairs checked again, after the checks or their settings have changed.

    The next attempt at each pair's prompt is opened; its judged traces are reused, so nobody is
    asked anything. What fails the checks again stays in quarantine.
    """
    from deltawheel.contracts.events import encode
    from deltawheel.contracts.transition import TransitionKind
    from deltawheel.infra import wiring
    from deltawheel.ops.outbox import Outbox

    settings = settings_of(context)
    now = wiring.system_clock().now()
    with wiring.reading(settings) as store, closing(Outbox.of(settings)) as outbox:
        held = store.quarantined_by_id(pair_ids)
        if missing := [pair_id for pair_id in pair_ids if pair_id not in held]:
            raise DeltawheelError(
                f"no pair {missing[0]} is in quarantine; `deltawheel pairs quarantined` names some"
            )
        opened = store.open_attempts(
            [quarantined.key for quarantined in held.values()],
            kind=TransitionKind.RELEASE,
            by=by,
            reason=reason,
            at=now,
            expires_at=now + timedelta(seconds=settings.generation.expire_after_s),
        )
        groups = store.groups([transition.key for transition in opened]).values()
        outbox.publish(
            [
                encode(event, wheel=settings.wheel, service="operator")
                for group in groups
                for event in group.owed
            ]
        )
    if as_json:
        print_json({"opened": opened, "broker_fault": outbox.fault})
        return
    click.echo(f"{len(opened)} of {len(held)} are checked again; the others have been, or are now")
    if opened and outbox.fault is not None:
        click.echo(
            f"the broker was not reached ({plain(outbox.fault)}); curation does it", err=True
        )
