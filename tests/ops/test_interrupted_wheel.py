"""A real wheel whose servers go away, and one that is deployed wrongly."""

import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.infra.stub_model_server import FAULTS
from tests.servers import stub_in_thread
from tests.waiting import wait_for
from tests.wheels import Wheel, leftovers, run_cli, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RUNTIME = {"breaker_cap_s": 1.0, "halt_after_refusals": 5}


def settings_for(right: str, wrong: str) -> dict[str, Any]:
    return {
        "servers": [],
        "training": {"is_enabled": False},
        "judge": {"kind": "exact-match"},
        "broker": {"partitions": 1},
        "runtime": RUNTIME,
        "generators": [
            {"name": "right", "endpoint": right, "model": "doubles", "capability": 1},
            {"name": "wrong", "endpoint": wrong, "model": "guesses", "capability": 0},
        ],
    }


def prompts(count: int, *, with_answer: bool = True) -> list[dict[str, Any]]:
    texts = [{"text": f"How much is {n} + {n}?"} for n in range(count)]
    if not with_answer:
        return texts
    return [body | {"reference_answer": str(2 * n)} for n, body in enumerate(texts)]


def doctor_levels(wheel: Wheel) -> dict[str, str]:
    done = run_cli("--config", str(wheel.config), "doctor", "--json")
    return {each["check"]: each["level"] for each in json.loads(done.stdout)["findings"]}


def is_over_after_resuming(wheel: Wheel) -> bool:
    wheel.cli("resume")
    return bool(wheel.cli("status")["open"] == 0)


def test_outage_of_model_servers_costs_no_prompt_and_is_on_record(tmp_path: Path) -> None:
    with (
        stub_in_thread("doubles") as (right, right_url),
        stub_in_thread("guesses") as (
            wrong,
            wrong_url,
        ),
    ):
        right.fault, wrong.fault = FAULTS["busy"], FAULTS["cut"]
        with running_up(tmp_path / "home", settings_for(right_url, wrong_url)) as wheel:
            wheel.submit(prompts(30))
            wait_for(lambda: len(wheel.cli("status")["outages"]) == 2, what="both outages")
            assert doctor_levels(wheel)["flow"] == "warning"
            asked = len(right.asked("chat/completions"))
            right.fault = None
            wait_for(lambda: len(wheel.cli("status")["outages"]) == 1, what="one server back")
            wait_for(lambda: bool(wheel.cli("status")["deferred"]), what="deferred records")
            assert len(right.asked("chat/completions")) > asked
            wrong.fault = None
            wheel.drained()
            status = wheel.cli("status")
            assert status["outcomes"] == {"paired": 30}
            assert status["dead_letters"] == 0
            wait_for(lambda: not wheel.cli("status")["deferred"], what="the last deferred record")
            assert wheel.cli("audit")["is_clean"]
            outages = wheel.store.outages(since=wheel.store.pool_log()[0].at)
            assert {outage.dependency for outage in outages} == {right_url, wrong_url}
    assert leftovers(tmp_path / "home") == []


def test_wrong_deployment_halts_a_partition_until_somebody_says_so(tmp_path: Path) -> None:
    with (
        stub_in_thread("doubles") as (_, right),
        stub_in_thread("guesses") as (_, wrong),
        running_up(tmp_path / "home", settings_for(right, wrong)) as wheel,
    ):
        wheel.submit(prompts(10, with_answer=False))
        wait_for(lambda: bool(wheel.cli("status")["halted_partitions"]), what="a halt")
        [halt] = wheel.cli("status")["halted_partitions"]
        assert halt["service"] == "judging"
        assert "reference_answer" in halt["reason"]
        assert doctor_levels(wheel)["flow"] == "failure"
        assert wheel.metric("judging", "deltawheel_halted_partitions") == 1
        assert wheel.cli("status")["dead_letters"] >= RUNTIME["halt_after_refusals"] - 1
        wheel.kill(wheel.service_pid("judging"))
        wait_for(
            lambda: wheel.metric("judging", "deltawheel_halted_partitions") == 1,
            what="the halt after a restart",
        )
        wait_for(lambda: is_over_after_resuming(wheel), timeout_s=120, what="all outcomes")
        assert wheel.cli("status")["outcomes"] == {"dead-lettered": 10}
        assert wheel.cli("audit")["is_clean"]
    assert leftovers(tmp_path / "home") == []
