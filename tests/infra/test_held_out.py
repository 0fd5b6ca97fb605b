import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.probe import HeldOut
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.sandbox.grammar import is_withheld
from tests.records import a_prompt

LINE = {"text": "1+1=", "reference_answer": "2", "domain": "sums"}


def with_probe(**probe: Any) -> Settings:
    return Settings.model_validate({"probe": probe})


def held_out(tmp_path: Path, *lines: dict[str, Any] | str, **probe: Any) -> HeldOut:
    file = tmp_path / "probe.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    found = wiring.open_held_out(with_probe(file=str(file), **probe))
    assert found is not None
    return found


def test_nobody_is_probed_unless_a_file_is_named() -> None:
    assert wiring.open_held_out(Settings()) is None


def test_each_domain_is_cut_into_sets_in_the_files_order(tmp_path: Path) -> None:
    lines = [{**LINE, "text": f"{n}+1="} for n in range(5)]
    other = {"text": "2*2=", "reference_answer": "4"}
    sets = held_out(tmp_path, *lines, "", other, num_items=2, domain="products").sets
    assert [(it.domain, len(it.prompts)) for it in sets] == [
        ("products", 1),
        ("sums", 2),
        ("sums", 2),
        ("sums", 1),
    ]
    assert sets[1].prompts[0].messages[0].content == "0+1="
    assert len({it.items_id for it in sets}) == 4


def test_what_is_held_out_is_known_again_whatever_stands_around_it(tmp_path: Path) -> None:
    found = held_out(tmp_path, LINE)
    assert found.holds(a_prompt(" 1+1=\n", domain="elsewhere", reference_answer=None))
    assert not found.holds(a_prompt("1+2="))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 of .*probe.jsonl"),
        ({"domain": "sums", "text": "1+1="}, "line 2 .*has no reference_answer, which judge"),
        ({**LINE, "messages": [{"role": "user", "content": "1"}]}, "line 2 .*'text' or 'messages'"),
        ("[1]", "line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: dict[str, Any] | str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        held_out(tmp_path, LINE, line)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"probe\.file: .* holds no prompts"):
        held_out(tmp_path, "")
    with pytest.raises(ConfigError, match=r"probe\.file: .*gone\.jsonl cannot be read"):
        wiring.open_held_out(with_probe(file=str(tmp_path / "gone.jsonl")))


def test_the_sandbox_keeps_what_it_withholds() -> None:
    settings = with_probe(file="sandbox", domain="sums")
    found, again = wiring.open_held_out(settings), wiring.open_held_out(settings)
    assert found is not None
    assert again is not None
    assert [it.items_id for it in found.sets] == [it.items_id for it in again.sets]
    asked = [prompt for it in found.sets for prompt in it.prompts]
    assert all(is_withheld(it.messages[-1].content) and found.holds(it) for it in asked)
    assert {it.domain for it in found.sets} == {"sums"}
    assert not found.holds(a_prompt("1+1+1=")) or is_withheld("1+1+1=")


def test_another_kind_of_file_is_refused_in_the_settings() -> None:
    with pytest.raises(ValueError, match=r"neither sandbox nor the path of a file that ends in"):
        with_probe(file="probe.csv")
