"""`deltawheel dead-letters`."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.ops.console import age, json_option, plain, print_json, print_table, settings_of
from deltawheel.ops.operator import by_option, reason_option

if TYPE_CHECKING:
    from deltawheel.contracts.settings import Settings
    from deltawheel.contracts.store import Store
    from deltawheel.ops.replay import Mover, Step

__all__ = ["command"]

_SHOWN = 50
_CUT = 120

filter_option = click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help=(
        "Only those of which this holds; all of them, if given more than once. Keys: service, "
        "topic, error, reason (a part of it), prompt, domain, kind (record or prompt), since and "
        "until (an age such as 2h, or a time). KEY~=PATTERN finds a regular expression."
    ),
)
ids_argument = click.argument("entry_ids", metavar="[ID]...", nargs=-1)
all_option = click.option("--all", "is_all", is_flag=True, help="All of them, without a filter.")
dry_option = click.option(
    "--dry-run", "is_dry", is_flag=True, help="Say what would be done, and change nothing."
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="At most so many, the newest first."
)


@click.group("dead-letters")
def command() -> None:
    """Look after records and prompts that could not be processed."""


@command.command("list")
@filter_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many to list.",
)
@click.option("--after", help="Start behind this id; the newest come first.")
@click.option(
    "--with-moved", is_flag=True, help="List those that were replayed or dropped as well."
)
@json_option
@click.pass_context
def list_letters(
    context: click.Context,
    filters: Sequence[str],
    limit: int,
    after: str | None,
    with_moved: bool,
    as_json: bool,
) -> None:
    """List what could not be processed and waits for somebody, the newest first.

    That is every record that a service refused, and every prompt that ended dead-lettered because
    its models refused it.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.letter_choice import find, matching
    from deltawheel.ops.letter_view import entry_json

    settings = settings_of(context)
    with wiring.reading(settings) as store:
        behind = find(store, [after])[0] if after else None
        with closing(store.letter_entries(after=behind, with_moved=with_moved)) as entries:
            shown = list(islice(matching(entries, filters, settings), limit + 1))
    has_more, shown = len(shown) > limit, shown[:limit]
    if as_json:
        print_json([entry_json(entry) for entry in shown])
        return
    now = wiring.system_clock().now()
    rows = [
        (
            entry.entry_id,
            entry.move.kind.value if entry.move else "",
            f"{entry.service} on {entry.topic}" if entry.service else "prompt",
            entry.attempt,
            age(entry.died_at, now),
            entry.reason[:_CUT],
        )
        for entry in shown
    ]
    columns = ("id", "moved", "died in", "attempt", "age", "reason")
    print_table(f"{len(rows)} dead letters", columns, rows)
    if has_more:
        click.echo(f"more: --after {plain(shown[-1].entry_id)}")


@command.command("show")
@click.argument("entry_id", metavar="ID")
@click.option(
    "--raw",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the record's value, byte for byte, to this file.",
)
@json_option
@click.pass_context
def show_letter(context: click.Context, entry_id: str, raw: Path | None, as_json: bool) -> None:
    """Show one: where it stood, why it died, and what it holds, as text where it is text."""
    from deltawheel.infra import wiring
    from deltawheel.ops import letter_view
    from deltawheel.ops.letter_choice import find

    with wiring.reading(settings_of(context)) as store:
        [entry] = find(store, [entry_id])
        letter = store.letters_by_id([entry_id]).get(entry_id)
        group = store.group(entry.prompt_key) if entry.prompt_key and letter is None else None
    if raw is not None:
        if letter is None or letter.value is None:
            raise DeltawheelError(f"{entry_id} has no value to write")
        raw.write_bytes(letter.value)
    if letter is not None:
        view: letter_view.View = letter_view.LetterView(entry, letter)
    else:
        assert group is not None, "closings have prompts"
        view = letter_view.PromptView(entry, group)
    if as_json:
        print_json(view.json())
        return
    for line in view.lines():
        click.echo(plain(line))


@command.command("replay")
@ids_argument
@filter_option
@all_option
@limit_option
@dry_option
@by_option
@reason_option
@json_option
@click.pass_context
def replay(
    context: click.Context,
    entry_ids: Sequence[str],
    filters: Sequence[str],
    is_all: bool,
    limit: int | None,
    is_dry: bool,
    by: str,
    reason: str,
    as_json: bool,
) -> int:
    """Try again what failed; what succeeded is reused. Replaying twice changes nothing more.

    Of a prompt that the store holds, the next attempt is opened. Any other record is published
    to its topic as the bytes that it was; refused again, it is a new dead letter.

    Exit code 1: something could not be replayed, and stays where it is.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.letter_choice import choose

    settings = settings_of(context)
    with wiring.reading(settings) as store:
        entries = choose(store, settings, entry_ids, filters, is_all=is_all, limit=limit)
        mover = _mover(store, settings, by=by, reason=reason)
        try:
            steps = list(mover.plan(entries) if is_dry else mover.replay(entries))
        finally:
            mover.outbox.close()
    _show_steps(steps, mover, is_dry=is_dry, as_json=as_json)
    return _status(steps)


@command.command("drop")
@ids_argument
@filter_option
@all_option
@limit_option
@dry_option
@by_option
@reason_option
@json_option
@click.pass_context
def drop(
    context: click.Context,
    entry_ids: Sequence[str],
    filters: Sequence[str],
    is_all: bool,
    limit: int | None,
    is_dry: bool,
    by: str,
    reason: str,
    as_json: bool,
) -> int:
    """Say that nothing is to be done about these; they are kept, and listed no longer."""
    from deltawheel.infra import wiring
    from deltawheel.ops.letter_choice import choose
    from deltawheel.ops.replay import plan_drop

    settings = settings_of(context)
    with wiring.reading(settings) as store:
        entries = choose(store, settings, entry_ids, filters, is_all=is_all, limit=limit)
        mover = _mover(store, settings, by=by, reason=reason)
        steps = list(plan_drop(entries) if is_dry else mover.drop(entries))
    _show_steps(steps, mover, is_dry=is_dry, as_json=as_json)
    return _status(steps)


def _mover(store: "Store", settings: "Settings", *, by: str, reason: str) -> "Mover":
    from deltawheel.infra import wiring
    from deltawheel.ops.outbox import Outbox
    from deltawheel.ops.replay import Mover

    return Mover(
        store=store,
        outbox=Outbox.of(settings),
        settings=settings,
        clock=wiring.system_clock(),
        by=by,
        reason=reason,
        say=lambda text: click.echo(text, err=True),
    )


def _show_steps(steps: Sequence["Step"], mover: "Mover", *, is_dry: bool, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(
            {
                "is_dry_run": is_dry,
                "steps": [asdict(step) for step in steps],
                "num_published": mover.outbox.num_published,
                "broker_fault": mover.outbox.fault,
            }
        )
        return
    said = "what would be done" if is_dry else "what was done"
    shown = [(step.entry_id, step.action.value, step.detail[:_CUT]) for step in steps[:_SHOWN]]
    print_table(f"{len(steps)} dead letters: {said}", ("id", "action", "detail"), shown)
    if len(steps) > _SHOWN:
        click.echo(f"and {len(steps) - _SHOWN} more; --json has all")
    counts = Counter(step.action.value for step in steps)
    click.echo(", ".join(f"{action}: {count}" for action, count in sorted(counts.items())))
    if mover.outbox.fault is not None and counts["open-attempt"]:
        click.echo(_about_broker(mover), err=True)


def _about_broker(mover: "Mover") -> str:
    wait_s = mover.settings.curation.republish_after_s
    return (
        f"the broker was not reached ({plain(mover.outbox.fault)}); the attempts are open, and "
        f"begin at most {wait_s:g} s after broker and curation run"
    )


def _status(steps: Sequence["Step"]) -> ExitCode:
    is_refused = any(step.action.value == "refuse" for step in steps)
    return ExitCode.FAILURE if is_refused else ExitCode.DONE
