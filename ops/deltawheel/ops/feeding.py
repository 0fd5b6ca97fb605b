"""Handing prompts to a gateway, with patience."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import RetryLaterError

__all__ = ["Gateway", "submit_patiently"]

_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)
"""A quarter of a minute in all: a busy store or a gateway started anew is back by then."""


class Gateway(Protocol):
    """Takes prompts in; `infra.gateway_client.GatewayClient` says what is raised."""

    def submit(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Submit prompts as one batch; return their ids as the store holds them."""
        ...


def submit_patiently(
    gateway: Gateway,
    bodies: Sequence[Mapping[str, Any]],
    *,
    clock: Clock,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Submit a batch, and again after a pause while the gateway or its store is away.

    Nothing is doubled by that, for the same submission is one prompt.

    Raises:
        RetryLaterError: it is away still; the message is what it said last.
        DeltawheelError: as `submit`, at once.
    """
    for number, pause_s in enumerate(_PAUSES_S, 1):
        try:
            return gateway.submit(bodies)
        except RetryLaterError as error:
            say(f"{error}; trying again in {pause_s:g} s ({number} of {len(_PAUSES_S)})")
        clock.wait(pause_s)
    return gateway.submit(bodies)
