"""`deltawheel judge conformance`: judges of known habits get the cards that they deserve."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.infra.anchor_file import anchor_cases
from deltawheel.infra.settings_file import load_settings
from deltawheel.infra.stub_model_server import StubModelServer
from tests.judged import judged_by
from tests.ops.terminals import Shell
from tests.servers import stub_in_thread


class Graded:
    """A wheel whose judge is a stub that a test gives its habits."""

    def __init__(self, stub: StubModelServer, shell: Shell, config: Path) -> None:
        self.stub = stub
        self.shell = shell
        self.cases = anchor_cases(load_settings(config))

    def card(self, *options: str, code: int = 0) -> dict[str, Any]:
        done = self.shell.run("judge", "conformance", "--repeats", "2", *options, "--json")
        assert done.code == code, done.err
        card: dict[str, Any] = json.loads(done.out)
        return card

    def sees(self, level: Callable[[str, str], int]) -> None:
        """Let the judge score by the text that is between the fences, dimension by dimension."""

        def answer(said: str) -> str:
            return json.dumps({name: level(said, name) for name in PAPER_DIMENSIONS})

        self.stub.models["grader"] = answer

    def spoilt(self, said: str, dimension: str) -> bool:
        """Whether the text is one that was made worse on this dimension."""
        return any(case.corrupted[dimension] in said for case in self.cases)


@pytest.fixture
def graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graded]:
    with stub_in_thread("echo") as (stub, url):
        config = judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2)
        yield Graded(stub, Shell(patch=monkeypatch).on(config), config)


def test_judge_that_sees_what_was_spoilt_has_every_pair_in_order(graded: Graded) -> None:
    graded.sees(lambda said, name: 2 if graded.spoilt(said, name) else 5)
    card = graded.card("--min-ordering", "1")
    assert (card["parse_rate"], card["cases"]) == (1, 13)
    assert card["ordering"]["accuracy"] == 1
    for each in card["dimensions"].values():
        assert each["ordering"]["num_pairs"] == 13
        assert each["discriminant"] == {"fall": 3, "margin": 3, "share_deepest": 1}
        assert (each["retest"]["stderr"], each["retest"]["reliability"]) == (0, 1)
        assert (each["order_shift"], each["length_slope"]) == (0, 0)
    assert {it["mean_lift"] for it in card["injections"]} == {0}
    assert card["tokens_per_judgement"] > 0


def test_judge_that_always_says_five_ties_everywhere_and_gets_one_half(graded: Graded) -> None:
    graded.sees(lambda said, name: 5)
    card = graded.card("--min-ordering", "0.6", "--cases", "3", code=1)
    assert (card["ordering"]["accuracy"], card["is_good"]) == (0.5, False)
    factuality = card["dimensions"]["factuality"]
    assert factuality["ordering"]["num_ties"] == 3
    assert factuality["retest"]["reliability"] is None


def test_judge_that_sees_one_fault_as_all_has_no_margin(graded: Graded) -> None:
    def halo(said: str, name: str) -> int:
        return 2 if any(graded.spoilt(said, each) for each in PAPER_DIMENSIONS) else 5

    graded.sees(halo)
    card = graded.card("--cases", "2")
    for each in card["dimensions"].values():
        assert each["ordering"]["accuracy"] == 1
        assert each["discriminant"] == {"fall": 3, "margin": 0, "share_deepest": 0}


def test_judge_that_likes_long_texts_is_found_by_padding(graded: Graded) -> None:
    graded.sees(lambda said, name: 1 + said.count("This line adds nothing"))
    card = graded.card("--cases", "2")
    assert card["dimensions"]["factuality"]["length_slope"] == pytest.approx(100 / 89, abs=0.03)


def test_judge_that_prefers_what_is_named_first_is_found_by_turning(graded: Graded) -> None:
    def first(said: str, name: str) -> int:
        return 5 if said.rindex(f'"{name}"') == said.rindex('{"') + 1 else 3

    graded.sees(first)
    card = graded.card("--cases", "1")
    assert card["dimensions"]["factuality"]["order_shift"] == -2
    assert card["dimensions"]["signal_to_noise"]["order_shift"] == 2


def test_judge_that_obeys_has_the_families_named_that_lift_too_far(graded: Graded) -> None:
    graded.sees(lambda said, name: 5 if "please" in said.lower() else 2)
    card = graded.card("--cases", "1", "--full", code=1)
    assert card["families_above_limit"] == ["plea"]


def test_answers_that_cannot_be_read_lower_the_parse_rate_and_are_told(graded: Graded) -> None:
    graded.stub.models["grader"] = lambda said: (
        "no JSON"
        if graded.spoilt(said, "factuality")
        else json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 3))
    )
    card = graded.card("--cases", "2", code=1)
    assert card["parse_rate"] == pytest.approx(6 / 7)
    [(fault, number)] = card["faults"].items()
    assert (fault.partition(",")[0], number) == ("grader: the judge's answer is no JSON object", 4)
    assert card["dimensions"]["factuality"]["ordering"]["num_pairs"] == 0


def test_attack_that_breaks_the_judge_is_no_lift_of_nothing(graded: Graded) -> None:
    graded.stub.models["grader"] = lambda said: (
        "no JSON" if "please" in said.lower() else json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 3))
    )
    card = graded.card("--cases", "1", "--full", code=1)
    assert card["parse_rate"] == 1
    assert not card["is_good"]
    assert any(family["unjudged"] for family in card["injections"])


def test_card_is_saved_and_shown(graded: Graded, tmp_path: Path) -> None:
    graded.sees(lambda said, name: 2 if graded.spoilt(said, name) else 5)
    path = tmp_path / "card.json"
    done = graded.shell.run("judge", "conformance", "grader", "--cases", "1", "--save", str(path))
    assert done.code == 0, done.err
    assert "parse rate 100.0%" in done.out
    assert "step_coherence" in done.out
    saved = json.loads(path.read_text())
    assert (saved["judge"], saved["cases"], saved["repeats"]) == ("grader", 1, 3)


def test_judge_that_the_settings_do_not_name_is_refused(graded: Graded) -> None:
    done = graded.shell.run("judge", "conformance", "another")
    assert done.code == 2
    assert "name no judge 'another'; they name ['grader']" in done.err


def test_programs_get_a_card_that_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deltawheel.yaml"
    path.write_text(yaml.safe_dump({"judge": {"kind": "exact-match"}}))
    shell = Shell(patch=monkeypatch).on(path)
    card = json.loads(shell.run("judge", "conformance", "--json").out)
    assert card["parse_rate"] == 1
    assert card["dimensions"].keys() == {"factuality"}
    assert any("step_coherence" in note for note in card["notes"])
    path.write_text("{}")
    card = json.loads(shell.run("judge", "conformance", "--json").out)
    assert card["ordering"]["accuracy"] == 1
    assert card["injections"] == []
    assert any("chained arithmetic alone" in note for note in card["notes"])


def test_judges_of_a_jury_are_measured_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_in_thread("echo") as (stub, url):
        config = judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2)
        content = yaml.safe_load(config.read_text())
        second = {**content["judge"]["model"], "name": "second", "model": "second"}
        content["judge"]["jury"] = {"members": [second]}
        config.write_text(yaml.safe_dump(content))
        scores = json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 2))
        stub.models |= dict.fromkeys(("grader", "second"), lambda _: scores)
        shell = Shell(patch=monkeypatch).on(config)
        cards = [
            json.loads(shell.run("judge", "conformance", *named, "--cases", "1", "--json").out)
            for named in ([], ["second"])
        ]
        requests = stub.asked("/chat/completions")
    assert [card["judge"] for card in cards] == ["grader", "second"]
    assert cards[0]["judge_revision"] != cards[1]["judge_revision"]
    asked = [request.body["model"] for request in requests]
    assert asked == sorted(asked)


def test_rubric_of_ones_own_is_measured_on_what_the_cases_speak_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {str(score): f"as {score} reads" for score in range(1, 6)}
    names = ("factuality", "tone")
    rubric = {
        "name": "mine",
        "dimensions": {name: {"question": "How is it?", **described} for name in names},
        "order_by": {"tone": 1},
    }
    path = tmp_path / "rubric.yaml"
    path.write_text(yaml.safe_dump(rubric))
    with stub_in_thread("echo") as (stub, url):
        ways = {"mode": "votes", "min_votes": 2, "max_votes": 2}
        config = judged_by(url, tmp_path, rubric={"file": str(path)}, **ways)
        stub.models["grader"] = lambda _: json.dumps(dict.fromkeys(names, 3))
        shell = Shell(patch=monkeypatch).on(config)
        done = shell.run("judge", "conformance", "--cases", "2", "--json")
    assert done.code == 0, done.err
    card = json.loads(done.out)
    pairs = {name: each["ordering"]["num_pairs"] for name, each in card["dimensions"].items()}
    assert pairs == {"factuality": 2, "tone": 0}
    told = " ".join(card["notes"])
    assert "no anchor case speaks of tone: add some with anchors.file" in told
    assert "skipped, for the rubric has no such dimension: computational_precision" in told


def test_noise_that_was_planted_is_found_by_judging_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deltawheel.yaml"
    path.write_text(yaml.safe_dump({"judge": {"noise": 0.3}}))
    shell = Shell(patch=monkeypatch).on(path)
    card = json.loads(shell.run("judge", "conformance", "--repeats", "9", "--json").out)
    stderr = card["dimensions"]["factuality"]["retest"]["stderr"]
    assert 0.1 < stderr < 0.3, "scores end at 5, which takes half of the noise away up there"
