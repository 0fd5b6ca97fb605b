"""Policies in worlds of known capabilities: what must come out, whatever the draws."""

import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.ladder import UpdateBy
from deltawheel.contracts.settings import RotationSettings
from deltawheel.infra import wiring
from deltawheel.ops.rotation_trial import CONTENDERS, ORACLE, run_trial
from deltawheel.ops.rotation_world import WORLDS
from tests.ops.stopped import a_config
from tests.ops.terminals import Shell

TARGETING = ("thompson", "ucb")


def told(
    world: str,
    contender: str,
    *,
    number: int = 800,
    seed: int = 0,
    update_by: UpdateBy = UpdateBy.PROBE,
    **rotation: Any,
) -> dict[str, Any]:
    return run_trial(
        WORLDS[world],
        contender,
        rotation=RotationSettings(**rotation),
        update_by=update_by,
        number=number,
        random=wiring.seeded_random(seed),
    ).told()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("contender", TARGETING)
def test_targeting_learns_what_the_priors_had_wrong(contender: str, seed: int) -> None:
    found = told("wrong-priors", contender, seed=seed)
    assert found["regret_by_quarter"][-1] < 0.6 * found["regret_by_quarter"][0]
    evenly = told("wrong-priors", "round-robin", seed=seed)
    assert found["regret"] < 0.5 * evenly["regret"]
    assert found["share_in_band"] > evenly["share_in_band"]


@pytest.mark.parametrize("contender", TARGETING)
def test_without_updates_wrong_priors_stay_wrong(contender: str) -> None:
    found = told("wrong-priors", contender, update_by=UpdateBy.NONE)
    assert found["regret_by_quarter"][-1] > 0.5 * found["regret_by_quarter"][0]
    assert found["regret"] > 2 * told("wrong-priors", contender)["regret"]


@pytest.mark.parametrize("contender", [*TARGETING, ORACLE])
def test_who_knows_all_from_the_start_regrets_nothing(contender: str) -> None:
    found = told("right-priors", contender, number=200)
    assert found["regret"] == pytest.approx(0.0, abs=1e-3)
    assert found["believed_at_the_end"] == pytest.approx(found["true_at_the_end"], abs=1e-3)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_identical_members_give_no_delta_and_less_and_less_of_one_is_believed(
    contender: str,
) -> None:
    short, long = (told("identical", contender, number=number) for number in (100, 1_200))
    assert short["mean_delta"] == long["mean_delta"] == 0.0
    assert long["regret"] == pytest.approx(0.0)
    assert long["believed_at_the_end"] <= short["believed_at_the_end"]
    assert long["believed_at_the_end"] < 0.6


def test_few_active_members_cost_regret_and_are_learned_of_all_the_same() -> None:
    few = told("wrong-priors", "thompson", number=800, max_active=3)
    assert few["regret"] > told("wrong-priors", "thompson", number=800)["regret"]
    assert few["regret"] < told("wrong-priors", "round-robin", number=800)["regret"]


def test_same_seed_same_figures() -> None:
    assert told("wrong-priors", "ucb", number=100) == told("wrong-priors", "ucb", number=100)


def test_simulate_prints_the_policies_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = Shell(patch=monkeypatch).on(a_config(tmp_path))
    asked = ("rotation", "simulate", "--prompts", "40", "--policy", "ucb", "--policy", "oracle")
    done = wheel.run(*asked, "--json")
    assert (done.code, done.err) == (0, "")
    assert [it["policy"] for it in json.loads(done.out)["policies"]] == ["ucb", "oracle"]
    assert "by quarter" in wheel.run(*asked).out
