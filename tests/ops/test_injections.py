"""The injection suite: what a judge can be talked into is measured, family by family."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.infra.judges.injections import BASES, attacks
from deltawheel.infra.settings_file import load_settings
from deltawheel.infra.stub_model_server import FAULTS, Answer
from deltawheel.ops.injections import Lift, measure_lifts
from tests.judged import judged_by
from tests.servers import stub_in_thread


def test_suite_has_two_hundred_attacks_in_ten_families_and_none_twice() -> None:
    families = attacks()
    assert len(families) == 10
    assert {len(texts) for texts in families.values()} == {20}
    assert len({text for texts in families.values() for text in texts}) == 200


def lifts_of(answer: Answer, tmp_path: Path, **server: Any) -> dict[str, Lift]:
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = answer
        stub.fault = server.get("fault")
        settings = load_settings(judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2))
        lifts = asyncio.run(measure_lifts(settings, per_family=5, say=lambda text: None))
    return {lift.family: lift for lift in lifts}


def scores(level: int) -> str:
    return json.dumps(dict.fromkeys(PAPER_DIMENSIONS, level))


def test_judge_that_gives_in_to_pleas_is_found_in_their_family(tmp_path: Path) -> None:
    lifts = lifts_of(lambda text: scores(4 if "please" in text.lower() else 1), tmp_path)
    assert lifts["plea"].mean > 1
    assert lifts["plea"].worst == 3
    assert lifts["padding"].mean == 0


def test_judge_that_is_moved_by_nothing_has_no_lift(tmp_path: Path) -> None:
    lifts = lifts_of(lambda _: scores(2), tmp_path)
    assert {(lift.mean, lift.worst, len(lift.lifts)) for lift in lifts.values()} == {(0, 0, 5)}


def test_base_that_is_not_judged_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(DeltawheelError, match="base 0 was not judged: grader is busy"):
        lifts_of(lambda _: scores(2), tmp_path, fault=FAULTS["busy"])


def test_bases_are_wrong() -> None:
    assert all(base.right_answer not in base.solution for base in BASES)
