"""Dead letters of a running wheel, replayed: what succeeded is reused, failures are tried again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra import wiring
from deltawheel.infra.stub_model_server import FAULTS, StubModelServer
from tests.components import kafka_home, require
from tests.servers import stub_in_thread
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NUM_REFUSED = 5
GARBAGE = b"{garbage \xff"


@dataclass
class Bench:
    """A wheel, and the one stub that serves both of its generators."""

    wheel: Wheel
    stub: StubModelServer

    @property
    def num_asked(self) -> int:
        return len(self.stub.asked("/completions"))

    def outcome(self, prompt_id: str) -> Outcome | None:
        group = self.wheel.store.group(PromptKey(prompt_id, 0))
        assert group is not None
        return group.closing.outcome if group.closing else None

    def entries(self, *filters: str) -> list[dict[str, Any]]:
        options = [part for text in filters for part in ("--filter", text)]
        listed: list[dict[str, Any]] = self.wheel.cli("dead-letters", "list", *options)
        return listed

    def replay(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.wheel.cli("dead-letters", "replay", *arguments, "--reason", "mended")
        assert done["broker_fault"] is None
        steps: list[dict[str, Any]] = done["steps"]
        return steps

    def is_buried(self, attempt: int) -> bool:
        """Whether both services that read the garbage have refused that attempt at it."""
        letters = self.wheel.store.dead_letters(100)
        found = {it.service for it in letters if it.value == GARBAGE and it.attempt == attempt}
        return found == {"judging", "monitoring"}


@pytest.fixture(params=["embedded", "local-kafka"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "local-kafka":
        require("kafka")
    env = {"KAFKA_HOME": str(kafka_home() or "")}
    with stub_in_thread("doubles", "guesses") as (stub, url):
        settings = {
            "broker": {"kind": request.param},
            "servers": [],
            "training": {"is_enabled": False},
            "judge": {"kind": "exact-match"},
            "generators": [
                {"name": "right", "endpoint": url, "model": "doubles", "capability": 1},
                {"name": "wrong", "endpoint": url, "model": "guesses", "capability": 0},
            ],
        }
        with running_up(tmp_path / "home", settings, env=env) as wheel:
            yield Bench(wheel, stub)


def bury_garbage(wheel: Wheel) -> None:
    producer = wiring.open_producer(wheel.settings)
    producer.publish([OutboundMessage(topic="default.traces", key=b"stranger", value=GARBAGE)])
    producer.close()


def lay_dead(bench: Bench) -> tuple[list[str], str]:
    """Have prompts refused by their models, one refused by the judge, and garbage on a topic.

    Then the models are mended; nobody can mend the others. Returns the prompts' ids.
    """
    wheel = bench.wheel
    bench.stub.fault = FAULTS["refused"]
    numbers = range(1, NUM_REFUSED + 1)
    bodies = [{"text": f"{n} + {n}?", "reference_answer": str(2 * n)} for n in numbers]
    refused = wheel.submit(bodies)
    wheel.drained()
    bench.stub.fault = None
    [unjudged] = wheel.submit([{"text": "How much is it?"}])
    wheel.drained()
    bury_garbage(wheel)
    wait_for(lambda: bench.is_buried(1), what="both readers bury the garbage")
    return refused, unjudged


def test_replay_tries_failures_again_and_nothing_else(bench: Bench) -> None:
    wheel = bench.wheel
    refused, unjudged = lay_dead(bench)
    assert {bench.outcome(prompt_id) for prompt_id in refused} == {Outcome.DEAD_LETTERED}
    prompts, records = bench.entries("kind=prompt"), bench.entries("kind=record")
    assert {entry["prompt_id"] for entry in prompts} == set(refused)
    assert len(records) == 4, "two traces that cannot be judged, and garbage that two have read"

    num_asked = bench.num_asked
    steps = bench.replay("--filter", "kind=prompt", "--filter", "reason~=too long")
    assert [step["action"] for step in steps] == ["open-attempt"] * NUM_REFUSED
    wheel.drained()
    assert {bench.outcome(prompt_id) for prompt_id in refused} == {Outcome.PAIRED}
    assert bench.num_asked == num_asked + 2 * NUM_REFUSED

    steps = bench.replay("--filter", "kind=record")
    assert sorted(step["action"] for step in steps) == ["open-attempt"] * 2 + ["publish"] * 2
    wait_for(lambda: bench.is_buried(2), what="both readers bury the garbage again")
    wheel.drained()
    assert bench.outcome(unjudged) is Outcome.DEAD_LETTERED
    assert bench.num_asked == num_asked + 2 * NUM_REFUSED, "the traces were there"
    again = bench.entries()
    assert [entry["attempt"] for entry in again] == [2] * 4
    assert {entry["reason"] for entry in again} == {entry["reason"] for entry in records}

    old = [entry["id"] for entry in (*prompts, *records)]
    assert {step["action"] for step in bench.replay(*old)} == {"nothing"}
    assert bench.entries() == again
    audit = wheel.cli("audit")
    assert (audit["findings"], audit["in_flight"]) == ([], 0)
    assert audit["outcomes"] == {"paired": NUM_REFUSED, "dead-lettered": 1}
