"""Pauses before another try, spread so that many who wait do not come back at one moment."""

import asyncio

from deltawheel.contracts.clock import Clock

__all__ = ["retry_pause_s", "sleep_unless"]


def retry_pause_s(
    attempt: int, *, base_s: float, cap_s: float, jitter: float, at_least_s: float | None = None
) -> float:
    """Return the pause before try `attempt` + 1: exponential with full jitter, in seconds.

    Full jitter (a uniform share of the exponential bound) spreads retries of many members best:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. `jitter` is in
    [0, 1); `at_least_s` is what the other side asked for, which may be anything: it is heard up to
    `cap_s`.
    """
    bound = min(cap_s, base_s * 2.0 ** min(attempt, 40))
    return max(bound * jitter, base_s / 10, min(at_least_s or 0.0, cap_s))


async def sleep_unless(event: asyncio.Event, duration_s: float, *, clock: Clock) -> None:
    """Sleep for so long, or until the event is set."""
    timer = asyncio.ensure_future(clock.sleep(duration_s))
    happened = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({timer, happened}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        happened.cancel()
