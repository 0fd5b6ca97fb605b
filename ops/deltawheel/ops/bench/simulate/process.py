"""A process of the simulation: what it has running dies with it, without a word."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.infra.simulated.virtual_time import VirtualClock
from deltawheel.ops.bench.simulate.plan import Side
from deltawheel.ops.bench.simulate.tracing import Trace
from deltawheel.ops.bench.simulate.weather import Weather

__all__ = ["KilledError", "Process", "adopt_tasks"]

T = TypeVar("T")

_owner: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("owner", default=None)


class KilledError(asyncio.CancelledError):
    """The process is dead: nothing that it still tries happens.

    To asyncio it is a cancellation, and no code of the product's may answer that by going on.
    """


@dataclass(eq=False, slots=True)
class Process:
    """One life of one service."""

    name: str
    aio: asyncio.AbstractEventLoop
    clock: VirtualClock
    trace: Trace
    weather: Weather
    is_alive: bool = True
    frozen_until_s: float = 0.0
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    at_death: list[Callable[[], None]] = field(default_factory=list)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of this process; the tasks that it starts are this process's too."""
        context = contextvars.copy_context()
        context.run(_owner.set, self)
        return self.aio.create_task(work, context=context)

    def die(self, why: str) -> None:
        """Die at once: no task is drained, no connection closed, nobody told."""
        if self.is_alive:
            self.trace.note(self.name, f"DIES {why}")
            self.end()

    def end(self) -> None:
        """Be gone, with all that it has running."""
        self.is_alive = False
        # Two turns later: what is being started would else be ended before it has begun.
        self.aio.call_soon(self.aio.call_soon, self._end_tasks)
        for act in self.at_death:
            act()

    def _end_tasks(self) -> None:
        for task in list(self.tasks):
            task.cancel()

    def check(self) -> None:
        """Let nothing happen that a dead process asks for.

        Raises:
            KilledError: it is dead.
        """
        if not self.is_alive:
            raise KilledError(self.name)

    def perform(self, what: str, act: Callable[[], T], *, lost: Callable[[], bool]) -> T:
        """Have one effect, at which the process may die, before or after.

        Raises:
            KilledError: it died here.
            RetryLaterError: the effect has happened, but its answer was lost.
        """
        self.check()
        effect = self.weather.next_effect()
        if self.weather.crashes(effect, Side.BEFORE):
            self.die(f"before {what}")
            raise KilledError(self.name)
        result = act()
        self.trace.note(self.name, what)
        if self.weather.crashes(effect, Side.AFTER):
            self.die(f"after {what}")
            raise KilledError(self.name)
        if lost():
            self.trace.note(self.name, f"answer lost: {what}")
            raise RetryLaterError(f"the answer to {what} was lost")
        return result


def adopt_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop note for each task whose process it is part of."""

    def make(
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        context: contextvars.Context | None = None,
        **options: Any,  # noqa: ANN401 - whatever a later Python adds
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **options)
        owner = (context.get(_owner) if context is not None else _owner.get()) or None
        if owner is not None:
            owner.tasks[task] = None
            task.add_done_callback(lambda done: owner.tasks.pop(done, None))
        return task

    loop.set_task_factory(cast(Any, make))


def owner_of_call() -> Process | None:
    """Return the process on whose behalf the running code acts."""
    return _owner.get()
