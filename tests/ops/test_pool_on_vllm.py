"""A pool that changes while it runs, on a real vLLM: members come, go, fall out and come back."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from tests.components import require
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

WHO = ("--by", "test", "--reason", "to see it")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    require("vllm")
    generators = [
        {"name": name, "server": "local", "adapter": f"sandbox:{name}", "capability": capability}
        for name, capability in (("strong", 2), ("weak", 0))
    ]
    settings = {
        "generators": [{**it, "sampling": {"max_tokens": 64}} for it in generators],
        "generation": {"health_interval_s": 3},
        "training": {"is_enabled": False},
    }
    with running_up(tmp_path_factory.mktemp("pool") / "home", settings) as running:
        yield running


def served_models(wheel: Wheel) -> set[str]:
    [server] = wheel.settings.servers
    try:
        with urllib.request.urlopen(f"{server.url}/models", timeout=10) as answer:
            return {model["id"] for model in json.load(answer)["data"]}
    except OSError:
        return set()


def ask(wheel: Wheel, first: int, count: int) -> set[str]:
    """Submit new prompts and return who has written their traces."""
    ids = wheel.submit([{"text": f"{n}+8-3="} for n in range(first, first + count)])
    wheel.drained(timeout_s=240)
    groups = wheel.store.groups([PromptKey(prompt_id, 0) for prompt_id in ids]).values()
    return {trace.generator for group in groups for trace in group.traces.values()}


def pool_of(wheel: Wheel) -> Pool:
    return Pool.from_log(wheel.store.pool_log())


def test_members_come_and_go_and_return_by_themselves(wheel: Wheel) -> None:
    assert ask(wheel, 0, 10) == {"strong", "weak"}

    added = ("--adapter", "sandbox:mid", "--server", "local", "--capability", "1")
    wheel.cli("generators", "add", "mid", *added, "--max-tokens", "64", *WHO)
    mid = pool_of(wheel).members["mid"]
    assert ask(wheel, 20, 20) == {"strong", "mid", "weak"}
    assert mid.model in served_models(wheel), "hot-loaded under a name with its revision"

    wheel.process_of("vllm-local").kill()
    wait_for(lambda: set(pool_of(wheel).absent) == {"strong", "mid", "weak"}, timeout_s=60)
    wait_for(lambda: pool_of(wheel).absent == {}, timeout_s=180)
    assert ask(wheel, 50, 20) == {"strong", "mid", "weak"}, "the empty server got its adapters back"

    wheel.cli("generators", "retire", "mid", *WHO)
    wait_for(lambda: mid.model not in served_models(wheel), timeout_s=60)
    assert ask(wheel, 80, 10) == {"strong", "weak"}

    log: list[dict[str, Any]] = wheel.cli("generators", "show", "mid")["log"]
    kinds = [event["kind"] for event in log]
    assert kinds == ["added", "left", "returned", "retired"]
    assert log[0]["reason"] == "by test: to see it"
    audit = wheel.cli("audit")
    assert (audit["is_clean"], audit["in_flight"]) == (True, 0)
