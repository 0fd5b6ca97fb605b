"""Keeps the processes of a wheel alive, and ends them in order."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Final, Self

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import SupervisorSettings
from deltawheel.infra.processes import become_subreaper, kill_adopted_orphans
from deltawheel.ops.supervisor.background import BackgroundCall
from deltawheel.ops.supervisor.broker_gate import BrokerGate
from deltawheel.ops.supervisor.child import Child
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan
from deltawheel.ops.supervisor.runfile import ProcessState

__all__ = ["Supervisor"]

WATCH_EVERY_S: Final = 0.1
MEMBERS_EVERY_S: Final = 5.0
# Without the broker nothing can be drained: what is in flight comes again from the store.
HALT_TIMEOUT_S: Final = 5.0

log = logging.getLogger(__name__)


class Supervisor:
    """Runs plans until it is told to stop, or until one of them cannot run.

    Use it as a context manager, so that no way out leaves a process; inside, call `wait_ready` and
    `run_until`, or `tick` every tenth of a second. Brokers and servers start at once; services
    start when the broker is ready and `prepare_broker` has returned.

    Args:
        plans: What to run.
        settings: Pauses and timeouts.
        clock: Time.
        random: Jitter of the pauses.
        prepare_broker: Makes the topics and publishes all owed events. Called in a thread, with no
            service running, before the first start of the services and whenever a memory-only
            broker has been lost and started afresh. It may raise `RetryLaterError`.
        publish: Told all states whenever one has changed.
    """

    def __init__(
        self,
        plans: Sequence[ProcessPlan],
        *,
        settings: SupervisorSettings,
        clock: Clock,
        random: Random,
        prepare_broker: Callable[[], None] = lambda: None,
        publish: Callable[[Sequence[ProcessState]], None] = lambda states: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._publish = publish
        self._executor = ThreadPoolExecutor(len(plans) + 1, thread_name_prefix="supervisor")
        self._children = [Child(plan, settings, self._executor) for plan in plans]
        self._gate = BrokerGate(BackgroundCall(self._executor, prepare_broker))
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._is_stopped = False
        self._published: tuple[ProcessState, ...] | None = None
        self._next_members_at_s = 0.0
        self._outgrown: Child | None = None
        become_subreaper()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def is_ready(self) -> bool:
        """Whether every process answers."""
        with self._lock:
            return all(child.is_ready for child in self._children)

    def states(self) -> tuple[ProcessState, ...]:
        """Return how each process stands."""
        with self._lock:
            return self._states()

    def tick(self) -> None:
        """Notice ends, start what is due, ask what is starting; never waits for an answer.

        Raises:
            ConfigError: a process refuses its settings; the message is its own.
            DeltawheelError: a process cannot run; the message names its log and its last lines.
        """
        with self._lock:
            if self._is_stopped:
                return
            now_s = self._clock.monotonic()
            self._notice_ends(now_s)
            for child in self._children:
                child.check(now_s, self._random.random)
            self._renew_outgrown(now_s)
            self._gate.tick(now_s, may_prepare=self._may_prepare())
            self._start_due(now_s)
            self._tell(now_s)
            self._raise_failure()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Keep everything running until `is_done`, which is asked ten times a second.

        Raises:
            DeltawheelError: as `tick`.
        """
        while not is_done():
            self.tick()
            self._clock.wait(WATCH_EVERY_S)

    def wait_ready(
        self, timeout_s: float, *, should_stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Start everything; return whether all of it answers, or false if told to stop before.

        Raises:
            DeltawheelError: as `tick`, or not everything is ready after `timeout_s` seconds.
        """
        deadline_s = self._clock.monotonic() + timeout_s
        is_late = False

        def is_over() -> bool:
            nonlocal is_late
            is_late = self._clock.monotonic() >= deadline_s
            return self.is_ready or is_late or should_stop()

        self.run_until(is_over)
        if is_late and not self.is_ready:
            waiting = [state for state in self.states() if state.phase != "ready"]
            names = ", ".join(
                f"{state.name} ({state.phase}, {state.log_file})" for state in waiting
            )
            raise DeltawheelError(f"not ready after {timeout_s:g} s: {names}; look into these logs")
        return self.is_ready

    def hurry(self) -> None:
        """Make a `stop` under way kill what it would wait for; safe in a signal handler."""
        self._hurry.set()

    def stop(self) -> None:
        """End all processes: gateway first, then along the wheel, then servers, then the broker.

        Each is asked first, and killed after `stop_timeout_s`. May be called again.

        Raises:
            DeltawheelError: a process cannot be killed.
        """
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        failures: list[str] = []
        in_order = sorted(self._children, key=lambda child: child.plan.stop_order)
        for _, group in groupby(in_order, key=lambda child: child.plan.stop_order):
            failures += self._stop_all(list(group))
        kill_adopted_orphans()
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._tell(self._clock.monotonic())
        if failures:
            raise DeltawheelError("; ".join(failures))

    def _states(self) -> tuple[ProcessState, ...]:
        return tuple(child.state() for child in self._children)

    def _notice_ends(self, now_s: float) -> None:
        ended = [c for c in self._children if c.notice_end(now_s, self._random.random)]
        if not ended:
            return
        # A guard that was killed has left its grandchildren to us.
        if orphans := kill_adopted_orphans():
            log.warning("killed orphans %s", orphans)
        for child in ended:
            state = child.state()
            log.warning("%s ended (status %s): %s", state.name, state.last_status, state.phase)
        if any(child.plan.is_memory_only for child in ended):
            self._halt_consumers(now_s)

    def _halt_consumers(self, now_s: float) -> None:
        self._gate.close()
        for child in self._consumers():
            child.halt(now_s + min(HALT_TIMEOUT_S, self._settings.stop_timeout_s))

    def _renew_outgrown(self, now_s: float) -> None:
        """Start a broker that keeps everything in memory afresh, once nobody reads its topics.

        `_tell` looks how large it is; what is owed is published from the store afterwards.
        """
        if self._outgrown is not None and self._is_silent():
            self._outgrown.halt(now_s + HALT_TIMEOUT_S)
            self._outgrown = None

    def _may_prepare(self) -> bool:
        brokers = [c for c in self._children if c.plan.kind is ProcessKind.BROKER]
        return self._is_silent() and all(child.is_ready for child in brokers)

    def _is_silent(self) -> bool:
        return all(child.process is None for child in self._consumers())

    def _consumers(self) -> list[Child]:
        return [child for child in self._children if child.plan.is_consumer]

    def _start_due(self, now_s: float) -> None:
        for child in self._children:
            is_allowed = self._gate.is_open or not child.is_service
            if is_allowed and child.lifecycle.is_due(now_s):
                child.start(now_s)

    def _tell(self, now_s: float) -> None:
        if now_s >= self._next_members_at_s:
            self._next_members_at_s = now_s + MEMBERS_EVERY_S
            kill_adopted_orphans()  # collects, too, what had not quite died at the last sweep
            for child in self._children:
                child.refresh_members()
                if self._gate.is_open and child.has_outgrown:
                    log.warning("%s has outgrown its memory, and starts afresh", child.plan.name)
                    self._outgrown = child
                    self._halt_consumers(now_s)
        states = self._states()
        if states == self._published:
            return
        try:
            self._publish(states)
        except OSError as error:
            # A full disk must not end the wheel; the next change tries again.
            log.warning("cannot write the run file: %s", error)
        self._published = states

    def _raise_failure(self) -> None:
        failures = [failure for c in self._children if (failure := c.describe_failure())]
        if any(child.refuses_settings for child in self._children):
            raise ConfigError("\n".join(failures))
        if failures:
            raise DeltawheelError("\n".join(failures))

    def _stop_all(self, children: Sequence[Child]) -> list[str]:
        """End these together; return a sentence for each that could not be ended."""
        processes = [child.process for child in children if child.process is not None]
        for process in processes:
            process.terminate()
        deadline_s = self._clock.monotonic() + self._settings.stop_timeout_s
        while any(process.poll() is None for process in processes):
            if self._hurry.is_set() or self._clock.monotonic() >= deadline_s:
                break
            self._clock.wait(WATCH_EVERY_S / 2)
        failures: list[str] = []
        for child in children:
            try:
                if child.process is not None:
                    child.process.kill()
            except DeltawheelError as error:
                failures.append(f"{child.plan.name}: {error}")
            child.stopped()
        return failures
