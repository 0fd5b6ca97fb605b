"""A wheel whose pool changes while it runs: over HTTP, by command, and because a server fails."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.stub_model_server import FAULTS, StubAnswer
from tests.servers import endpoints, stub_in_thread
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BY = "by a client of the gateway: no reason given"


def post(wheel: Wheel, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{wheel.gateway}{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def submit(wheel: Wheel, first: int) -> list[str]:
    numbers = range(first, first + 30)
    return wheel.submit(
        [
            {"text": f"How much is {n} + {n}?", "reference_answer": str(2 * n), "domain": "sums"}
            for n in numbers
        ]
    )


def writers(wheel: Wheel, prompt_ids: list[str]) -> set[str]:
    """Return who wrote traces of these prompts."""
    return {
        trace.generator
        for prompt_id in prompt_ids
        if (group := wheel.store.group(PromptKey(prompt_id, 0)))
        for trace in group.traces.values()
    }


def standing(wheel: Wheel) -> list[str]:
    return [each.name for each in Pool.from_log(wheel.store.pool_log()).standing()]


def test_members_join_fail_return_and_go_while_prompts_are_answered(tmp_path: Path) -> None:
    health = {"health_interval_s": 0.9, "health_failures": 2}
    with (
        endpoints() as settings,
        stub_in_thread("doubles") as (stub, url),
        running_up(tmp_path / "home", {**settings, "generation": health}) as wheel,
    ):
        member = {"name": "guest", "endpoint": url, "model": "doubles", "capability": 0.5}
        member |= {"revision": "1", "completion_price": "1000"}
        assert post(wheel, "/v1/generators", {"member": member})["reason"] == BY
        first = submit(wheel, 1)
        wheel.drained()
        assert writers(wheel, first) == {"right", "wrong", "guest"}

        stub.fault = FAULTS["busy"]
        wait_for(lambda: standing(wheel) == ["right", "wrong"], what="guest has left")
        second = submit(wheel, 101)
        wheel.drained()
        assert writers(wheel, second) == {"right", "wrong"}
        shown = wheel.cli("generators", "show", "guest")
        assert "health checks in a row failed" in shown["absent"]

        stub.fault = None
        wait_for(lambda: "guest" in standing(wheel), what="guest has returned")
        third = submit(wheel, 201)
        wheel.drained()
        assert "guest" in writers(wheel, third)

        other = StubAnswer(content="2", served_model="another")
        stub.models["doubles"] = lambda _: other
        wait_for(lambda: "guest" not in standing(wheel), what="a foreign model is out")
        wheel.cli("generators", "retire", "guest", "--by", "ann", "--reason", "an impostor")
        fourth = submit(wheel, 301)
        wheel.drained()
        assert writers(wheel, fourth) == {"right", "wrong"}

        with pytest.raises(urllib.error.HTTPError, match="409"):
            post(wheel, "/v1/generators/wrong/drain", {"by": "bob"})
        spending = wheel.cli("status")["spending"]
        assert float(spending["cost"]) > 0
        assert spending["tokens_per_pair"] > 0
        kinds = [event["kind"] for event in wheel.cli("generators", "show", "guest")["log"]]
        assert kinds == ["added", "left", "returned", "left", "retired"]
