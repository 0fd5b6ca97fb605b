"""Adoption: the promoted model goes back into the pool, and the wheel has turned once."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.events import encode
from deltawheel.contracts.ports import Producer
from deltawheel.contracts.store import Store

__all__ = ["adopt"]

log = logging.getLogger("deltawheel.training")

_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 60.0
_GIVE_UP_AFTER_S = 600.0


def adopt(
    cycle_id: str,
    *,
    store: Store,
    producer: Producer,
    clock: Clock,
    wheel: str,
    keep: Callable[[], None],
) -> Mapping[str, Any]:
    """Emit the promotion event again and again until the pool's log has it.

    A broker that does not answer is one more reason to emit it again, not to give up.

    `keep` is called several times a second and prolongs the step's lease.

    Raises:
        CycleError: the decision row of this cycle is missing.
        RetryLaterError: generation has not taken the model in for ten minutes.
    """
    promotion = next((row for row in store.promotions() if row.cycle_id == cycle_id), None)
    if promotion is None:
        raise CycleError("the cycle was promoted, but the store holds no decision row of it")
    event = encode(promotion, wheel=wheel, service="training")
    started_s = next_s = clock.monotonic()
    wait_s = _FIRST_WAIT_S
    num_sent = 0
    while not any(row.cause == promotion.promotion_id for row in store.pool_log()):
        keep()
        now_s = clock.monotonic()
        if now_s - started_s > _GIVE_UP_AFTER_S:
            raise RetryLaterError("generation has not taken the promoted model into the pool")
        if now_s >= next_s:
            try:
                producer.publish([event])
                num_sent += 1
            except RetryLaterError as error:
                log.warning("the promotion is not published yet: %s", error)
            next_s, wait_s = now_s + wait_s, min(2 * wait_s, _LONGEST_WAIT_S)
        clock.wait(0.1)
    return {"generator": promotion.generator.name, "num_events": num_sent}
