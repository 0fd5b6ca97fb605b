"""What a wheel keeps: after a promotion, through kills and restarts."""

import signal

import psutil
import pytest

from deltawheel.ops.demo.world import demo_prompts
from tests.ops.conftest import DemoRun
from tests.waiting import wait_for
from tests.wheels import Wheel, leftovers, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

SETTINGS = {"training": {"cron": None, "min_new_pairs": None}}


def promoted_name(wheel: Wheel) -> str:
    name: str
    [name] = {g["name"] for g in wheel.cli("generators", "list")} - {"strong", "mid", "weak"}
    return name


def ask(wheel: Wheel, seed: int) -> None:
    """Submit prompts that are new each time, and wait for their outcomes."""
    wheel.submit(list(demo_prompts(60, seed=seed)))
    wheel.drained()


def num_traces(wheel: Wheel, generator: str) -> int:
    pairs = wheel.store.pairs(after=None, limit=1_000_000)
    sides = (side for pair in pairs for side in (pair.chosen, pair.rejected))
    return sum(side.trace.generator == generator for side in sides)


def engines() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and any(
            "EngineCore" in text or "VLLM" in text
            for text in (process.info["name"] or "", *(process.info["cmdline"] or ()))
        )
    ]


def test_promoted_generator_survives_what_kills_vllm_and_the_wheel(demo: DemoRun) -> None:
    with running_up(demo.home, SETTINGS) as wheel:
        name = promoted_name(wheel)
        ask(wheel, 1)
        before = num_traces(wheel, name)
        assert before > 0

        restarts = restarts_of(wheel, "vllm-local")
        assert engines(), "the names by which engines are found must be theirs"
        kill_and_outlive_no_engine(wheel, wheel.process_of("vllm-local").pid)
        wait_for(lambda: restarts_of(wheel, "vllm-local") > restarts, what="vLLM's restart")
        ask(wheel, 2)
        assert num_traces(wheel, name) > before
        assert wheel.metric("generation", "deltawheel_adapter_loads_total", generator=name) >= 1

        [state] = [row for row in wheel.run["processes"] if row["name"] == "vllm-local"]
        kill_and_outlive_no_engine(wheel, state["guard"]["pid"])
        wait_for(lambda: is_ready(wheel, "vllm-local"), timeout_s=180, what="vLLM is back")

        wheel.process.send_signal(signal.SIGKILL)
        wheel.process.wait()
        wait_for(lambda: not engines(), what="no engine outlives the supervisor")
        wait_for(lambda: not leftovers(demo.home), what="no process outlives the supervisor")

    with running_up(demo.home, SETTINGS) as wheel:
        assert promoted_name(wheel) == name
        assert wheel.cli("audit")["is_clean"]
    assert leftovers(demo.home) == []


def kill_and_outlive_no_engine(wheel: Wheel, pid: int) -> None:
    """Kill a process of vLLM's; the engine that ran beside it must end with it."""
    old = {process.pid for process in engines()}
    wheel.kill(pid)
    wait_for(
        lambda: old.isdisjoint(process.pid for process in engines()),
        what=f"nothing of the old vLLM lives after {pid} was killed",
    )


def restarts_of(wheel: Wheel, name: str) -> int:
    [state] = [row for row in wheel.run["processes"] if row["name"] == name]
    count: int = state["num_restarts"]
    return count


def is_ready(wheel: Wheel, name: str) -> bool:
    [state] = [row for row in wheel.run["processes"] if row["name"] == name]
    return bool(state["phase"] == "ready")
