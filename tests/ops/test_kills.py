"""Every process of one wheel is killed while work is in flight in it; nothing may be lost."""

import threading
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, Trigger
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import PAUSE_LEASE
from deltawheel.infra import wiring
from deltawheel.ops.cycles import request_cycle
from deltawheel.ops.demo.world import demo_prompts
from tests.components import require
from tests.gauges import gauges_of_rows, gauges_on_page
from tests.waiting import wait_for
from tests.wheels import Wheel, leftovers, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

NUM_PROMPTS = 300
HELD = (
    "gateway.stored:2",
    "generation.assigned:20",
    "judging.received:20",
    "curation.ended:20",
    "training.step",
    "monitoring.seen:200",
)
SETTINGS: dict[str, Any] = {
    "training": {"cron": None, "min_new_pairs": None, "min_pairs": 20, "lease_s": 5},
    "evaluation": {"items_per_suite": 60},
    "curation": {"republish_after_s": 5},
    "supervisor": {"backoff_base_s": 0.2, "backoff_cap_s": 1},
}


@dataclass
class Held:
    """A wheel whose services each hold one piece of work at a failpoint."""

    wheel: Wheel
    points: Path
    refused: threading.Event
    poster: threading.Thread
    held_bodies: list[dict[str, Any]]
    accepted: set[str]
    retry_ids: list[str] = field(default_factory=list)

    def submit(self, bodies: list[dict[str, Any]]) -> list[str]:
        """POST prompts and remember their ids, all of which the audit must know."""
        ids = self.wheel.submit(bodies)
        self.accepted.update(ids)
        return ids

    def subject(self, name: str) -> str:
        """Wait until a service is held there; return what it works on."""
        path = self.points / f"{name}.reached"
        wait_for(path.is_file, timeout_s=180, what=f"{name} holds a piece of work")
        text = wait_for(path.read_text, what=f"{name} says what it holds")
        return text.split()[-1]

    def key_has_ended(self, prompt_id: str) -> bool:
        return any(
            row.key.prompt_id == prompt_id and row.is_closed for row in self.wheel.store.evidence()
        )


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    require("vllm")
    home = tmp_path_factory.mktemp("kills") / "home"
    points = home.parent / "failpoints"
    points.mkdir()
    env = {"DELTAWHEEL_FAILPOINTS": ",".join(HELD), "DELTAWHEEL_FAILPOINT_DIR": str(points)}
    bodies = list(demo_prompts(NUM_PROMPTS + 3, seed=5))
    with running_up(home, SETTINGS, env=env) as wheel:
        accepted = set(wheel.submit(bodies[:NUM_PROMPTS]))
        refused = threading.Event()

        def post_unanswered() -> None:
            try:
                wheel.submit(bodies[NUM_PROMPTS:])
            except (urllib.error.URLError, OSError):
                refused.set()

        poster = threading.Thread(target=post_unanswered)
        poster.start()
        yield Held(
            wheel=wheel,
            points=points,
            refused=refused,
            poster=poster,
            held_bodies=bodies[NUM_PROMPTS:],
            accepted=accepted,
        )
    assert leftovers(home) == []


def kill_service(held: Held, name: str) -> None:
    """Kill a service's own process and wait until another one answers in its place."""
    before = held.wheel.service_pid(name)
    held.wheel.kill(before)

    def is_back() -> bool:
        try:
            return held.wheel.service_pid(name) != before and bool(held.wheel.metrics(name))
        except (OSError, ValueError):
            return False

    wait_for(is_back, timeout_s=60, what=f"{name} is started again")


def test_gateway_killed_before_its_answer_gives_the_same_id_to_the_retry(held: Held) -> None:
    stored = held.subject("gateway.stored")
    kill_service(held, "gateway")
    held.poster.join(60)
    assert held.refused.is_set(), "the POST must have stayed unanswered"
    held.retry_ids = wait_for(lambda: retry(held), what="the retry is answered")
    assert held.retry_ids[0] == stored


def retry(held: Held) -> list[str]:
    try:
        return held.submit(held.held_bodies)
    except OSError:
        return []


@pytest.mark.parametrize(
    ("service", "point", "effect"),
    [
        ("generation", "generation.assigned", "trace"),
        ("judging", "judging.received", "judgement"),
        ("curation", "curation.ended", "closing"),
    ],
)
def test_killed_service_finds_what_it_had_done_and_does_the_rest(
    held: Held, service: str, point: str, effect: str
) -> None:
    subject = held.subject(point)
    stage = {"trace": 60, "judgement": 60, "closing": 40}[effect]
    wait_for(lambda: num_effects(held.wheel, effect) >= stage, timeout_s=120, what="work beside it")
    kill_service(held, service)
    name = "deltawheel_effects_found_total"
    wait_for(
        lambda: held.wheel.metric(service, name, effect=effect) >= 1,
        timeout_s=120,
        what=f"{service} finds an effect",
    )
    prompt_id = prompt_of(held, point, subject)
    wait_for(lambda: held.key_has_ended(prompt_id), timeout_s=120, what=f"{prompt_id} ended")


def num_effects(wheel: Wheel, effect: str) -> int:
    progress = wheel.store.progress()
    counts = {
        "trace": progress.traces,
        "judgement": progress.judgements,
        "closing": progress.closed,
    }
    return counts[effect]


def prompt_of(held: Held, point: str, subject: str) -> str:
    if point != "judging.received":
        return subject
    trace = held.wheel.store.trace(subject)
    assert trace is not None
    return trace.prompt_id


def test_monitoring_killed_before_its_commit_shows_what_the_rows_say(held: Held) -> None:
    held.subject("monitoring.seen")
    kill_service(held, "monitoring")
    held.wheel.drained()
    rows = gauges_of_rows(held.wheel.store)
    assert rows["deltawheel_prompts"]["paired",] > 0
    assert rows["deltawheel_sample_delta_mean"]

    def agrees() -> bool:
        shown = gauges_on_page(held.wheel.metrics("monitoring"), rows)
        return all(shown[name] == pytest.approx(values) for name, values in rows.items())

    wait_for(agrees, what="monitoring's gauges equal the rows")


def test_killed_broker_is_refilled_with_what_is_owed(held: Held) -> None:
    wheel = held.wheel
    ids = pause_all_generation(held)
    ids += held.submit(list(demo_prompts(40, seed=6)))
    old = wheel.process_of("broker").pid
    wheel.kill(old)
    wait_for(
        lambda: "owed events again" in wheel.log.read_text(),
        timeout_s=120,
        what="owed events are published again",
    )
    resume_generation(wheel)
    wheel.drained()
    assert all(held.key_has_ended(prompt_id) for prompt_id in ids)


def pause_all_generation(held: Held) -> list[str]:
    """Hold new assignments, as a training cycle does, so that prompts stay owed.

    Generation may know of the pause a little later: prompts are submitted one by one until it has
    put one off. Returns the ids of all of these.
    """
    store = held.wheel.store
    now = wiring.system_clock().now()
    assert store.acquire_lease(PAUSE_LEASE, token="test", at=now, until=now + timedelta(minutes=5))
    bodies = demo_prompts(200, seed=8)
    ids: list[str] = []

    def num_retries() -> float:
        return held.wheel.metric("generation", "deltawheel_retries_total", topic="prompts")

    def is_assigned(prompt_id: str) -> bool:
        group = store.group(PromptKey(prompt_id, 0))
        return group is not None and group.assignment is not None

    def one_is_put_off() -> bool:
        before = num_retries()
        [probe] = held.submit([next(bodies)])
        ids.append(probe)
        wait_for(lambda: num_retries() > before or is_assigned(probe), what=f"{probe} is seen")
        return not is_assigned(probe)

    wait_for(one_is_put_off, what="generation puts a prompt off")
    return ids


def resume_generation(wheel: Wheel) -> None:
    wheel.store.release_lease(PAUSE_LEASE, token="test")


def test_requests_to_a_killed_vllm_are_asked_again(held: Held) -> None:
    wheel = held.wheel
    ids = held.submit(list(demo_prompts(800, seed=7)))
    traces = wheel.store.progress().traces
    wait_for(lambda: wheel.store.progress().traces > traces, what="vLLM writes traces")
    wheel.kill(wheel.process_of("vllm-local").pid)
    wait_for(
        lambda: wheel.metric("generation", "deltawheel_model_requests_total", result="retry") >= 1,
        what="a request is retried",
    )
    wheel.drained(timeout_s=240)
    assert all(held.key_has_ended(prompt_id) for prompt_id in ids)


def test_killed_training_begins_its_step_again(held: Held) -> None:
    wheel = held.wheel
    clock = wiring.system_clock()
    cycle = request_cycle(wheel.store, wheel.settings, clock, Trigger.OPERATOR)
    held.subject("training.step")
    kill_service(held, "training")

    def ended() -> Cycle | None:
        now = wheel.store.cycle(cycle.cycle_id)
        return now if now and now.state in {CycleState.ENDED, CycleState.FAILED} else None

    result = wait_for(ended, timeout_s=300, what="the cycle ends")
    assert result is not None
    assert result.state is CycleState.ENDED, result.error
    assert result.step(StepName.TRAIN).attempt == 2


def test_audit_accounts_for_every_prompt_afterwards(held: Held) -> None:
    held.wheel.drained()
    audit = held.wheel.cli("audit")
    assert audit["findings"] == []
    assert audit["in_flight"] == 0
    assert audit["prompts"] == len(held.accepted)
    assert len(held.retry_ids) == len(held.held_bodies)
    assert all(held.key_has_ended(prompt_id) for prompt_id in held.retry_ids)
