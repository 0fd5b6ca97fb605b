"""Deferred records' rows, written many at a time: where one server is down they come in crowds."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.interruptions import Deferral, Deferrals
from deltawheel.services.runtime.batching import MicroBatcher, batched_in_a_thread

__all__ = ["DeferralBook"]

_MAX_ITEMS: Final = 500

Item = TypeVar("Item")


class DeferralBook:
    """Gathers what concurrent records write; each call takes one, and returns once it is stored.

    Raises:
        RetryLaterError: the store is busy or away.
    """

    def __init__(self, deferrals: Deferrals, *, clock: Clock) -> None:
        def batched(write: Callable[[Sequence[Item]], None]) -> MicroBatcher[Item, None]:
            def written(items: Sequence[Item]) -> Sequence[None]:
                write(items)
                return [None] * len(items)

            return batched_in_a_thread(written, max_items=_MAX_ITEMS, clock=clock)

        self.add: MicroBatcher[Deferral, None] = batched(deferrals.add_deferrals)
        self.postpone: MicroBatcher[Deferral, None] = batched(deferrals.postpone_deferrals)
        self.end: MicroBatcher[str, None] = batched(deferrals.end_deferrals)
