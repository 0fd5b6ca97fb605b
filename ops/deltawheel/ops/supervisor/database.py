"""The wheel's own database: up before anything opens the store, down after everything has ended."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings, StoreKind
from deltawheel.infra import wiring
from deltawheel.ops.supervisor.plan import DATABASE_READY_TIMEOUT_S, plan_database
from deltawheel.ops.supervisor.runfile import ProcessState
from deltawheel.ops.supervisor.supervisor import Supervisor

__all__ = ["StateBoard", "own_database"]

_SPARE_S: Final = 10.0

Publish = Callable[[Sequence[ProcessState]], None]


class StateBoard:
    """Puts what several supervisors say of their processes together, in the order they came."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._parts: dict[str, tuple[ProcessState, ...]] = {}

    def part(self, name: str) -> Publish:
        """Return where one supervisor publishes."""

        def publish(states: Sequence[ProcessState]) -> None:
            with self._lock:
                self._parts[name] = tuple(states)
                self._publish([state for part in self._parts.values() for state in part])

        return publish


@contextmanager
def own_database(
    settings: Settings, clock: Clock, *, publish: Publish, say: Callable[[str], None]
) -> Iterator[None]:
    """Run the wheel's own PostgreSQL, where the settings ask for one; restart it when it dies.

    It has a supervisor of its own, because the store must be open before the wheel's can start.

    Raises:
        ConfigError: its programs are not installed.
        DeltawheelError: it cannot be made or started; the message names its log.
    """
    if settings.store.kind is not StoreKind.LOCAL_POSTGRES:
        yield
        return
    plan = plan_database(
        settings,
        make_command=lambda: wiring.database_command(settings),
        is_ready=lambda: wiring.database_is_ready(settings),
    )
    supervisor = Supervisor(
        [plan],
        settings=settings.supervisor,
        clock=clock,
        random=wiring.system_random(),
        publish=publish,
    )
    is_over = threading.Event()

    def keep() -> None:
        try:
            supervisor.run_until(is_over.is_set)
        except DeltawheelError as error:
            say(f"error: {error}")

    with supervisor:
        supervisor.wait_ready(DATABASE_READY_TIMEOUT_S + _SPARE_S)
        keeper = threading.Thread(target=keep, name="database")
        keeper.start()
        try:
            yield
        finally:
            is_over.set()
            keeper.join()
