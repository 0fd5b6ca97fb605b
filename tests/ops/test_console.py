import json
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.outcome import Outcome
from deltawheel.ops.console import age, field, plain, print_json, print_table
from tests.ops.terminals import CONTROL, STYLE, Terminal
from tests.records import T0, a_pair, seconds


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize(
    ("past", "said"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59.9), "59 s"),
        (timedelta(seconds=60), "1 min 0 s"),
        (timedelta(minutes=59, seconds=59), "59 min 59 s"),
        (timedelta(hours=1), "1 h 0 min"),
        (timedelta(hours=23, minutes=59), "23 h 59 min"),
        (timedelta(days=1), "1 d 0 h"),
        (timedelta(days=400, hours=5), "400 d 5 h"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_age_is_told_in_its_two_largest_units(past: timedelta, said: str) -> None:
    assert age(T0, T0 + past) == said


def test_age_of_nothing_is_a_dash() -> None:
    assert age(None, T0) == "-"


@given(st.text())
def test_plain_text_holds_no_control_character_but_line_breaks_and_tabs(text: str) -> None:
    assert CONTROL.search(plain(text)) is None
    if CONTROL.search(text) is None:
        assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x08\x00\x7f", r"a\x0db\x08\x00\x7f"),
        ("a\n\tb", "a\n\tb"),
        ("a\u2028b\u202ec\u2066d", r"a\u2028b\u202ec\u2066d"),
        ("[red]ä 雪 ±[/red]", "[red]ä 雪 ±[/red]"),
        (7, "7"),
    ],
)
def test_control_characters_are_written_out_and_the_rest_is_as_it_was(
    text: object, shown: str
) -> None:
    assert plain(text) == shown


@given(st.text())
def test_json_gives_every_text_back_and_moves_no_cursor(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("deltawheel.ops.console.click.echo", said.append)
        print_json([text])
    assert CONTROL.search(said[0]) is None
    assert json.loads(said[0]) == [text]


def test_json_of_a_record_is_its_wire_form(capsys: pytest.CaptureFixture[str]) -> None:
    pair = a_pair()
    print_json({"pair": pair, "all": [pair]})
    wire: Any = json.loads(pair.model_dump_json())
    assert json.loads(printed(capsys)) == {"pair": wire, "all": [wire]}


def test_json_writes_times_as_iso_8601_and_names_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"at": seconds(1.5), "outcome": Outcome.PAIRED, "none": None})
    assert json.loads(printed(capsys)) == {
        "at": "2026-01-01T00:00:01.500000+00:00",
        "outcome": "paired",
        "none": None,
    }


def test_table_shows_title_columns_and_cells_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("2 things", ("name", "count"), [("a", 1), ("b", None)])
    lines = [line.split() for line in printed(capsys).splitlines()]
    assert lines == [["2", "things"], ["name", "count"], ["a", "1"], ["b"]]


def test_table_takes_nothing_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[red]t[/red]", ("[b]c[/b]",), [("[i]x[/i] [/nothing]",), (":boom:",)])
    lines = [line.strip() for line in printed(capsys).splitlines()]
    assert lines == ["[red]t[/red]", "[b]c[/b]", "[i]x[/i] [/nothing]", ":boom:"]


def test_long_cell_is_folded_to_the_terminal_and_never_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    print_table("t", ("text",), [("0123456789" * 20,)])
    lines = STYLE.sub("", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(line.strip() for line in lines) == "ttext" + "0123456789" * 20


@pytest.mark.parametrize("variable", ["COLUMNS", "FORCE_COLOR"])
def test_row_is_one_line_where_no_terminal_reads_it(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "40")
    ids = [f"pair_{digit * 64}" for digit in "ab"]
    print_table("t", ("pair", "prompt", "text"), [(ids[0], ids[1], "0123456789" * 20)])
    *_, row = STYLE.sub("", printed(capsys)).splitlines()
    assert row.split() == [*ids, "0123456789" * 20]


@pytest.mark.parametrize("broken", ["\n", "\r\n", "\t", "\u2028", "\u2029", "\x85", "\v"])
def test_cell_cannot_pass_for_another_row(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("pair", "prompt"), [("pair_1", f"x{broken}pair_2  forged")])
    _, _, row = printed(capsys).splitlines()
    assert row.split()[0] == "pair_1"
    assert broken not in row


@given(st.text())
def test_only_the_first_line_of_a_field_begins_where_names_do(text: str) -> None:
    first, *further = field("prompt", text).splitlines()
    assert first.startswith("prompt    ")
    assert all(line.startswith(" " * 10) for line in further)


def test_empty_table_still_has_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("0 pairs", ("pair",), [])
    assert "0 pairs" in printed(capsys)
