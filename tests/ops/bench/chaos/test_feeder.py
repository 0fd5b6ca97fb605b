"""Clients that do not give up: every batch is submitted until it is answered."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.infra.clock import SystemClock
from deltawheel.infra.gateway_client import RefusedPromptsError
from deltawheel.ops.bench.chaos.feeder import Feeder
from deltawheel.ops.bench.chaos.world import chaos_prompts
from tests.waiting import wait_for


@dataclass
class FlakyGateway:
    """Fails as its script says, then accepts; the same prompt always has the same id."""

    errors: list[DeltawheelError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        with self.lock:
            if self.errors:
                raise self.errors.pop(0)
            self.asked += [body["text"] for body in bodies]
        return [{"prompt_id": body["text"], "round": 0} for body in bodies]


class HastyClock(SystemClock):
    """Waits a fiftieth of what it is asked to."""

    def wait(self, duration_s: float) -> None:
        super().wait(duration_s / 50)


def fed_by(gateway: FlakyGateway | None, *, most_open: int = 40) -> Feeder:
    return Feeder(
        chaos_prompts(), find_gateway=lambda: gateway, most_open=most_open, clock=HastyClock()
    )


def test_unanswered_batches_are_submitted_again_and_no_prompt_is_left_out() -> None:
    gateway = FlakyGateway([RetryLaterError("away"), DeltawheelError("500")])
    feeder = fed_by(gateway)
    feeder.start()
    wait_for(lambda: len(feeder.accepted) >= 40, what="prompts are accepted")
    feeder.stop()
    assert len(gateway.asked) == len(set(gateway.asked)) == len(feeder.accepted)
    assert feeder.unanswered == {"RetryLaterError": 1, "DeltawheelError": 1}
    assert all(body["text"] == key.prompt_id for key, body in feeder.accepted.items())


def test_nothing_more_is_submitted_while_enough_is_open() -> None:
    feeder = fed_by(FlakyGateway(), most_open=20)
    feeder.start()
    wait_for(lambda: feeder.num_open >= 20, what="enough is open")
    count = len(feeder.accepted)
    assert count <= 20 + 5  # one batch of each of the two clients may cross the line
    feeder.num_open = 0
    wait_for(lambda: len(feeder.accepted) > count, what="more is submitted")
    feeder.stop()


def test_prompt_that_is_refused_ends_the_run() -> None:
    feeder = fed_by(FlakyGateway([RefusedPromptsError("wrong", {0: "too long"})]))
    feeder.start()
    wait_for(lambda: feeder.has_failed, what="the refusal is noticed")
    with pytest.raises(DeltawheelError, match="the gateway refused what is valid: wrong"):
        feeder.stop()
