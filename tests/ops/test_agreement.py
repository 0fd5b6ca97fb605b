"""`deltawheel judge agreement`: what the store keeps of several judges, told."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.judgement import Opinion
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from tests.ops.terminals import Shell
from tests.records import a_judgement, a_prompt, a_trace, an_assignment, seconds, some_scores


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    config = tmp_path / "deltawheel.yaml"
    config.write_text(f"home: {tmp_path / 'home'}\nwheel: test\n")
    (tmp_path / "home" / "state").mkdir(parents=True)
    return Shell(patch=monkeypatch).on(config)


def add_opinions(home: Path, *names: str, number: int = 520) -> None:
    """Judges are unlike by half a point each, and score traces 1 to 5 in turns."""
    with closing(wiring.open_store(Settings(wheel="test", home=home))) as store:
        prompts = store.add_prompts([a_prompt(f"{index}+1=") for index in range(number)])
        assignments = store.add_assignments([an_assignment(prompt) for prompt in prompts])
        traces = store.add_traces([a_trace(assignment) for assignment in assignments])
        judged = [
            a_judgement(trace, judged_at=seconds(10 + index)).model_copy(
                update={
                    "opinions": tuple(
                        Opinion(
                            judge=name,
                            judge_revision=f"{name}@1",
                            scores=some_scores(min(5, 1 + index % 4 + place / 2)),
                        )
                        for place, name in enumerate(names)
                    )
                }
            )
            for index, trace in enumerate(traces)
        ]
        store.add_judgements(judged)


def test_alpha_is_told_with_its_interval_over_all_pages(shell: Shell, tmp_path: Path) -> None:
    add_opinions(tmp_path / "home", "one", "two")
    done = shell.run("judge", "agreement", "--json")
    assert done.code == 0, done.err
    [panel] = json.loads(done.out)["panels"]
    assert panel["traces"] == 520
    assert [judge["name"] for judge in panel["judges"]] == ["one", "two"]
    row = panel["agreement"][0]
    assert row["dimension"] == "factuality"
    assert row["interval"][0] < row["alpha"] < row["interval"][1]
    assert row["alpha"] == pytest.approx(0.905, abs=0.002)
    assert row["first_is_higher_by"] == -0.5
    shown = shell.run("judge", "agreement", "--limit", "40").out
    assert "40 traces" in shown
    assert "one at one@1, two at two@1" in shown


def test_every_two_of_three_judges_are_compared(shell: Shell, tmp_path: Path) -> None:
    add_opinions(tmp_path / "home", "one", "two", "three", number=60)
    [panel] = json.loads(shell.run("judge", "agreement", "--json").out)["panels"]
    compared = [tuple(row["judges"]) for row in panel["agreement"]]
    assert list(dict.fromkeys(compared)) == [
        ("one", "two", "three"),
        ("one", "two"),
        ("one", "three"),
        ("two", "three"),
    ]


def test_nothing_judged_by_several_is_said_and_fails(shell: Shell, tmp_path: Path) -> None:
    add_opinions(tmp_path / "home", number=1)
    done = shell.run("judge", "agreement")
    assert done.code == 1
    assert "judge.jury.members" in done.out


def test_only_what_was_judged_since_then_counts(shell: Shell, tmp_path: Path) -> None:
    add_opinions(tmp_path / "home", "one", "two", number=60)
    assert shell.run("judge", "agreement", "--since", "2025-01-01").code == 0
    assert shell.run("judge", "agreement", "--since", "2126-01-01").code == 1
    wrong = shell.run("judge", "agreement", "--since", "yesterday")
    assert wrong.code == 2
    assert "give an age such as 90m" in wrong.err
