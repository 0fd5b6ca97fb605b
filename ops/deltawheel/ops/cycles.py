"""Asking for a cycle and waiting for its end."""

from collections.abc import Iterator

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.cycle import Cycle, CycleState, Trigger
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store

__all__ = ["follow_cycle", "request_cycle"]

_ENDS = frozenset({CycleState.ENDED, CycleState.FAILED})


def request_cycle(store: Store, settings: Settings, clock: Clock, trigger: Trigger) -> Cycle:
    """Store a request; the training service takes it up within a second.

    Raises:
        DeltawheelError: a cycle is open already; one runs at a time.
    """
    if opened := store.open_cycles():
        raise DeltawheelError(
            f"cycle {opened[0].cycle_id} is {opened[0].state.value}, and one runs at a time: "
            f"`deltawheel cycle show {opened[0].cycle_id}`"
        )
    now = clock.now()
    cycle = Cycle.request(wheel=settings.wheel, trigger=trigger, cause=now.isoformat(), at=now)
    return store.add_cycle(cycle)


def follow_cycle(
    store: Store, cycle_id: str, clock: Clock, *, every_s: float = 0.5
) -> Iterator[Cycle]:
    """Yield the cycle again and again until it has ended; the last one yielded is its end."""
    while True:
        cycle = store.cycle(cycle_id)
        if cycle is None:
            raise DeltawheelError(f"the store has lost cycle {cycle_id}")
        yield cycle
        if cycle.state in _ENDS:
            return
        clock.wait(every_s)
