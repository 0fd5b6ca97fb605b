"""What commands print: a table for people, JSON for machines, always one of the two."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import Settings

__all__ = [
    "age",
    "field",
    "json_option",
    "one_line",
    "plain",
    "print_json",
    "print_table",
    "settings_of",
]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, ends a line unseen, or turns the order of what is read."""

_FIELD_WIDTH = 10
_UNFOLDED_WIDTH = 1_000_000

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def settings_of(context: click.Context) -> Settings:
    """Load the settings that the global options name."""
    from deltawheel.infra.settings_file import load_settings

    settings = load_settings(context.obj["config"])
    home = context.obj["home"]
    return settings.model_copy(update={"home": home}) if home else settings


def plain(value: object) -> str:
    r"""Return it as text that only shows: control characters are written out, as in `\x1b`.

    Models, servers and clients write what they like; a terminal must not obey them.
    """
    return _CONTROL.sub(lambda found: _written_out(ord(found[0])), str(value))


def one_line(value: object) -> str:
    r"""Return it as `plain` does, with line breaks and tabs written out too, as in `\n`."""
    return plain(value).replace("\n", "\\n").replace("\t", "\\t")


def field(name: str, text: str) -> str:
    """Return a name and its text, whose further lines are set in: none passes for one of ours."""
    further = "\n" + " " * _FIELD_WIDTH
    return f"{name:<{_FIELD_WIDTH}}" + plain(text).replace("\n", further)


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def print_json(value: object) -> None:
    """Print a value, records in their wire form."""
    text = json.dumps(value, default=_wire_form, indent=2, ensure_ascii=False)
    click.echo(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _wire_form(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, Record):
        return value.model_dump(mode="json")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a title; what models wrote is shown as text, never as markup.

    A terminal's width folds long cells. In a pipe or a file each row stays one line, for grep,
    whatever is in its cells.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(one_line(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else one_line(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.file.isatty():
        console.width = _UNFOLDED_WIDTH
    # Apart from the table, whose width it would otherwise be folded to.
    console.print(Text(plain(title), style="table.title"))
    console.print(table)


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago that was, in its two largest units."""
    if since is None:
        return "-"
    seconds = max(0, int((now - since).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3_600} h"
