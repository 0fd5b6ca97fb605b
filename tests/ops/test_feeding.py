"""Handing prompts to a gateway that is away for a while."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.infra.gateway_client import RefusedPromptsError
from deltawheel.ops.feeding import submit_patiently
from tests.records import seconds

BATCH = [{"text": "1+1="}]
ACCEPTED = [{"prompt_id": "prompt_1", "round": 0}]


@dataclass
class PassingClock:
    """Time that passes only by waiting."""

    past_s: float = 0.0

    def now(self) -> datetime:
        return seconds(self.past_s)

    def monotonic(self) -> float:
        return self.past_s

    def wait(self, duration_s: float) -> None:
        self.past_s += duration_s

    async def sleep(self, duration_s: float) -> None:
        raise AssertionError("feeding has no asyncio")


@dataclass
class UnreliableGateway:
    """Fails as its script says, and then accepts."""

    errors: list[DeltawheelError] = field(default_factory=list)
    asked: list[Sequence[Mapping[str, Any]]] = field(default_factory=list)

    def submit(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.asked.append(bodies)
        if self.errors:
            raise self.errors.pop(0)
        return [dict(entry) for entry in ACCEPTED]


def busy(times: int) -> UnreliableGateway:
    return UnreliableGateway([RetryLaterError(f"busy {number}") for number in range(times)])


def test_gateway_that_accepts_is_asked_once_and_nothing_is_said() -> None:
    gateway, clock, said = busy(0), PassingClock(), list[str]()
    assert submit_patiently(gateway, BATCH, clock=clock, say=said.append) == ACCEPTED
    assert (gateway.asked, clock.past_s, said) == ([BATCH], 0.0, [])


def test_gateway_that_is_away_is_asked_again_after_longer_and_longer_pauses() -> None:
    gateway, clock, said = busy(3), PassingClock(), list[str]()
    assert submit_patiently(gateway, BATCH, clock=clock, say=said.append) == ACCEPTED
    assert gateway.asked == [BATCH] * 4
    assert clock.past_s == 1 + 2 + 4
    assert said == [
        "busy 0; trying again in 1 s (1 of 4)",
        "busy 1; trying again in 2 s (2 of 4)",
        "busy 2; trying again in 4 s (3 of 4)",
    ]


def test_patience_ends_after_a_quarter_of_a_minute_with_what_was_said_last() -> None:
    gateway, clock, said = busy(99), PassingClock(), list[str]()
    with pytest.raises(RetryLaterError, match=r"^busy 4$"):
        submit_patiently(gateway, BATCH, clock=clock, say=said.append)
    assert clock.past_s == 15
    assert (len(gateway.asked), len(said)) == (5, 4)


@pytest.mark.parametrize(
    "error", [DeltawheelError("wrong token"), RefusedPromptsError("refused", {0: "empty"})]
)
def test_what_another_try_cannot_mend_is_raised_at_once(error: DeltawheelError) -> None:
    gateway, clock, said = UnreliableGateway([error]), PassingClock(), list[str]()
    with pytest.raises(type(error)) as caught:
        submit_patiently(gateway, BATCH, clock=clock, say=said.append)
    assert caught.value is error
    assert (len(gateway.asked), clock.past_s, said) == (1, 0.0, [])
