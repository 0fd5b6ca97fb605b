"""Evaluation items: fresh for each cycle, and never in the training data."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.settings import EvaluationSettings, SuiteSettings
from deltawheel.infra.sandbox.grammar import Problem, is_withheld
from deltawheel.pipelines.items import Item, Suite, load_suites
from tests.pipelines.fakes import SeededRandom


def evaluation_of(items: str, *, items_per_suite: int = 50) -> EvaluationSettings:
    suite = SuiteSettings(name="own", role=SuiteRole.OUT_OF_DOMAIN, items=items)
    return EvaluationSettings(suites=(suite,), items_per_suite=items_per_suite)


def the_suite(evaluation: EvaluationSettings, *, seed: int = 1) -> Suite:
    (suite,) = load_suites(evaluation, seed=seed, random=SeededRandom())
    return suite


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def a_line(number: int) -> str:
    return json.dumps({"prompt": f"{number}?", "reference_answer": str(number)})


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31 - 1))
def test_sandbox_items_are_withheld_from_training_whatever_the_seed(seed: int) -> None:
    suites = load_suites(EvaluationSettings(items_per_suite=50), seed=seed, random=SeededRandom())
    assert [suite.name for suite in suites] == ["in-domain", "times", "mixed", "max-min"]
    for suite in suites:
        assert len({item.item_id for item in suite.items}) == 50
        for item in suite.items:
            assert is_withheld(item.prompt)
            assert item.target == str(Problem.parse(item.prompt).answer)


@pytest.mark.parametrize("kind", ["sandbox", "file"])
def test_items_are_the_same_for_one_seed_and_others_for_another(tmp_path: Path, kind: str) -> None:
    file = write_lines(tmp_path / "items.jsonl", *map(a_line, range(500)))
    evaluation = evaluation_of("sandbox:guard" if kind == "sandbox" else file)
    first = the_suite(evaluation, seed=1)
    assert the_suite(evaluation, seed=1) == first
    fresh = set(the_suite(evaluation, seed=2).items) - set(first.items)
    assert len(fresh) > 30


def test_a_file_gives_its_items_with_their_answers_each_once(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "items.jsonl", a_line(1), "", a_line(2), a_line(1), "  ")
    suite = the_suite(evaluation_of(file))
    assert suite.role is SuiteRole.OUT_OF_DOMAIN
    assert set(suite.items) == {Item.of("1?", "1"), Item.of("2?", "2")}
    assert len(suite.items) == 2


def test_a_long_file_is_cut_to_the_items_asked_for(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "items.jsonl", *map(a_line, range(200)))
    assert len(the_suite(evaluation_of(file, items_per_suite=70)).items) == 70


def test_numbers_are_answers_too(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "items.jsonl", '{"prompt": "6*7=", "reference_answer": 42}')
    assert the_suite(evaluation_of(file)).items == (Item.of("6*7=", "42"),)


def test_any_text_that_json_may_hold_is_one_item(tmp_path: Path) -> None:
    """U+2028 and U+0085 may stand unescaped in JSON; Python's splitlines would cut there."""
    text = "é \u2028 \u0085 {{x}} <b> 𝟙"
    row = json.dumps({"prompt": text, "reference_answer": "a\nb"}, ensure_ascii=False)
    file = write_lines(tmp_path / "items.jsonl", row + "\r", a_line(1))
    assert set(the_suite(evaluation_of(file)).items) == {Item.of(text, "a\nb"), Item.of("1?", "1")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "Expecting value"),
        ('{"prompt": "1+1="', "Expecting"),
        ('{"prompt": "1+1="}', "reference_answer"),
        ('{"reference_answer": "2"}', "prompt"),
        ('["1+1=", "2"]', "list indices"),
        ("2", "not subscriptable"),
        ('{"prompt": "1+1=", "reference_answer": null}', "reference_answer is null"),
        ('{"prompt": null, "reference_answer": "2"}', "prompt is null"),
        ('{"prompt": "1+1=", "reference_answer": ["2"]}', "reference_answer is"),
        ('{"prompt": "1+1=", "reference_answer": true}', "reference_answer is true"),
        pytest.param("[" * 100_000, "recursion depth", id="nested too deeply"),
    ],
)
def test_a_wrong_line_is_named_with_its_file_and_number(
    tmp_path: Path, line: str, said: str
) -> None:
    file = write_lines(tmp_path / "items.jsonl", a_line(1), "", line)
    with pytest.raises(ConfigError) as caught:
        the_suite(evaluation_of(file))
    message = str(caught.value)
    assert message.startswith(f"evaluation.suites.own.items: line 3 of {file} is not an object")
    assert said in message


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"suites\.own\.items: .*none\.jsonl cannot be read"):
        the_suite(evaluation_of(str(tmp_path / "none.jsonl")))


def test_a_file_that_is_no_text_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"suites\.own\.items: .*cannot be read"):
        the_suite(evaluation_of(str(tmp_path / "items.jsonl")))


def test_an_empty_file_holds_no_items(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "items.jsonl", "", "")
    with pytest.raises(ConfigError, match="holds no items"):
        the_suite(evaluation_of(file))


def test_more_items_than_a_sandbox_suite_gives_say_how_many_it_does() -> None:
    with pytest.raises(ConfigError) as caught:
        the_suite(evaluation_of("sandbox:guard", items_per_suite=10_001))
    said = str(caught.value)
    assert said == "evaluation.suites.own.items: num_items is 10001; use 0 to 10000"
