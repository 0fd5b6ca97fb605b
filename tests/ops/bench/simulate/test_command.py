"""`deltawheel bench simulate`: what it prints, and how it ends."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from deltawheel.ops.bench.simulate import fleet
from deltawheel.ops.bench.simulate.command import command
from deltawheel.ops.bench.simulate.plan import Plan
from deltawheel.ops.bench.simulate.run import Report, simulate


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, [*arguments, "--jobs", "1"], standalone_mode=False)
    code = result.return_value if result.exception is None else 2
    return code, result.stdout, result.stderr


def a_loss_at(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(played: int, *, plan: Plan | None = None) -> Report:
        report = simulate(played, plan=plan)
        return replace(report, violations=("1 prompts are lost",)) if played == seed else report

    monkeypatch.setattr(fleet, "simulate", lose)


def test_clean_seeds_end_with_0_and_a_sum() -> None:
    code, out, err = run("--seeds", "3", "--json")
    told = json.loads(out)
    assert (code, told["runs"], told["failed_runs"], told["failed"]) == (0, 3, 0, [])
    assert told["deaths"] > 0
    assert "3/3 runs, 0 failed" in err


def test_a_failing_seed_is_named_with_what_plays_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    a_loss_at(11, monkeypatch)
    code, out, err = run("--seeds", "3", "--from", "10")
    assert code == 1
    assert "1 prompts are lost" in err
    assert "deltawheel bench simulate --seed 11" in err
    assert "failed_runs" in out


def test_a_failing_seed_stands_in_the_json(monkeypatch: pytest.MonkeyPatch) -> None:
    a_loss_at(1, monkeypatch)
    code, out, _ = run("--seeds", "2", "--json")
    [failed] = json.loads(out)["failed"]
    assert (code, failed["seed"], failed["violations"]) == (1, 1, ["1 prompts are lost"])
    assert failed["replay"] == "deltawheel bench simulate --seed 1"


def test_one_seed_shows_all_that_happened() -> None:
    code, out, _ = run("--seed", "3")
    report = simulate(3)
    assert code == 0
    assert out.splitlines()[: len(report.lines)] == list(report.lines)
    assert report.digest in out


def test_a_death_at_one_place_can_be_played_alone() -> None:
    code, out, _ = run("--seed", "0", "--crash-at", "6:after")
    assert code == 0
    assert sum(" DIES after " in line for line in out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("--seed", "0", "--crash-at", "soon"), ("--crash-at", "1:after")]
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2
