"""Anchor cases as files: what ships holds what it promises, and a wrong file is told where."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.anchors import AnchorCase
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings import Settings
from deltawheel.infra.anchor_file import anchor_cases, read_anchors
from deltawheel.infra.sandbox.verifier import verify
from tests.judged import judged_by

CASE: dict[str, Any] = {
    "name": "sum",
    "task": "1+1=",
    "solution": "It is 2.",
    "corrupted": {"tone": "It is 2, you fool."},
}


def a_file(tmp_path: Path, *cases: object) -> Path:
    path = tmp_path / "anchors.yaml"
    path.write_text(yaml.safe_dump({"cases": list(cases)}))
    return path


def shipped(tmp_path: Path) -> list[AnchorCase]:
    from deltawheel.infra.settings_file import load_settings

    return anchor_cases(load_settings(judged_by("http://127.0.0.1:1/v1", tmp_path)))


def test_cases_that_ship_order_more_than_sixty_pairs_over_all_dimensions(tmp_path: Path) -> None:
    cases = shipped(tmp_path)
    assert len(cases) >= 12
    assert sum(len(case.corrupted) for case in cases) >= 60
    assert all(case.corrupted.keys() == PAPER_DIMENSIONS.keys() for case in cases)
    assert all(case.paraphrase for case in cases)


def test_texts_of_a_case_differ_and_keep_the_answer_but_for_one(tmp_path: Path) -> None:
    for case in shipped(tmp_path):
        texts = case.texts(PAPER_DIMENSIONS)
        assert len(set(texts.values())) == len(texts) == 7, case.name
        last = case.solution.splitlines()[-1]
        ends = {name for name, text in texts.items() if last not in text.splitlines()}
        assert ends == {"factuality"}, case.name


def test_each_corruption_changes_only_what_it_is_named_for(tmp_path: Path) -> None:
    for case in shipped(tmp_path):
        lines = set(case.solution.splitlines())
        steps = case.corrupted["step_coherence"].splitlines()
        assert set(steps) == lines, case.name
        assert steps != case.solution.splitlines(), case.name
        assert lines < set(case.corrupted["signal_to_noise"].splitlines()), case.name
        for dimension in ("factuality", "computational_precision"):
            kept = lines & set(case.corrupted[dimension].splitlines())
            assert len(kept) == len(lines) - 1, (case.name, dimension)


def test_sandbox_has_cases_whose_corruptions_lower_one_share_alone() -> None:
    for case in anchor_cases(Settings()):
        good = verify(case.task, case.solution).shares
        assert set(good.values()) == {1.0}
        for dimension, text in case.corrupted.items():
            worse = verify(case.task, text).shares
            assert {name for name in good if worse[name] < good[name]} == {dimension}


def test_dimensions_that_are_not_asked_for_have_no_text(tmp_path: Path) -> None:
    [case] = read_anchors(a_file(tmp_path, CASE))
    assert case.texts({"tone"}) == {"solution": "It is 2.", "tone": "It is 2, you fool."}
    assert case.texts({"factuality"}) == {"solution": "It is 2."}


def test_settings_name_a_file_of_ones_own(tmp_path: Path) -> None:
    settings = Settings(anchors={"file": a_file(tmp_path, CASE)})
    assert [case.name for case in anchor_cases(settings)] == ["sum"]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([], "cases: Value should have at least 1"),
        ([{**CASE, "corrupted": {}}], r"cases\.0\.corrupted: "),
        ([{**CASE, "colour": 1}], r"cases\.0\.colour: Extra inputs"),
        ([CASE, CASE], r"names must differ, but \['sum'\] are there twice"),
        ([{**CASE, "corrupted": {"tone": "It is 2."}}], "sum.corrupted.tone: it is the solution"),
        ([{**CASE, "corrupted": {"paraphrase": "2"}}], r"\['paraphrase'\] name texts of a case"),
    ],
)
def test_fault_is_told_with_its_place(cases: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"anchors.file: .*{said}"):
        read_anchors(a_file(tmp_path, *cases))


@pytest.mark.parametrize("content", [None, "{", "\udcff"])
def test_file_that_cannot_be_read_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"anchors.file: .*anchors\.yaml (cannot be read|is no)"):
        read_anchors(path)
