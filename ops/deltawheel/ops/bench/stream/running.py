"""A wheel of the bench while it runs: fed, watched, and looked at from outside."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import psutil

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.bench.stream.world import prompt_bodies
from deltawheel.ops.wheel import READY_TIMEOUT_S, Cast, RunningWheel, running_wheel

__all__ = ["Batch", "Staged", "Stream", "running_stream"]

_BATCH: Final = 500
_LOOK_EVERY_S: Final = 0.02
_STALLED_S: Final = 60.0


class Staged(Protocol):
    """What a bench runs."""

    def settings(self) -> Settings:
        """Return the settings of its wheel."""
        ...

    def cast(self, settings: Settings) -> Cast:
        """Return who runs in place of the usual processes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one batch of prompts took, from its first request to the last stored pair."""

    pairs: int
    seconds: float
    cpu_us_per_pair: Mapping[str, float]
    """By process; `client` is who sent the prompts and looked on."""

    @property
    def pairs_per_s(self) -> float:
        """The rate."""
        return self.pairs / self.seconds


class Stream:
    """A running wheel, by what the bench asks of it."""

    def __init__(self, wheel: RunningWheel) -> None:
        self.wheel = wheel
        self.clock = wheel.clock
        self._failure: BaseException | None = None
        self._num_fed = 0

    def keep_running(self, is_over: Callable[[], bool]) -> None:
        """Supervise until it is over; for a thread of its own."""
        try:
            self.wheel.supervisor.run_until(is_over)
        except DeltawheelError as error:
            self._failure = error

    def run(self, count: int) -> Batch:
        """Feed that many new prompts as fast as the gateway takes them; wait for all pairs.

        Raises:
            DeltawheelError: a process cannot run, or no pair came for a minute.
        """
        gateway = wiring.open_gateway(self.wheel.gateway_url)
        bodies = prompt_bodies(self._num_fed, count)
        wanted = self.num_pairs() + count
        before, begun_s = self.cpu_s(), self.clock.monotonic()
        while batch := list(islice(bodies, _BATCH)):
            gateway.submit(batch)
        self._num_fed += count
        self.wait_pairs(wanted)
        seconds = self.clock.monotonic() - begun_s
        spent = {name: cpu_s - before.get(name, 0.0) for name, cpu_s in self.cpu_s().items()}
        return Batch(
            pairs=count,
            seconds=seconds,
            cpu_us_per_pair={name: 1e6 * cpu_s / count for name, cpu_s in spent.items()},
        )

    def num_pairs(self) -> int:
        """Count the stored pairs."""
        return self.wheel.store.count_pairs()

    def wait_pairs(self, wanted: int) -> None:
        """Wait until that many pairs are stored."""
        found, since_s = -1, self.clock.monotonic()
        while (now := self.num_pairs()) < wanted:
            self.require_running()
            if now != found:
                found, since_s = now, self.clock.monotonic()
            if self.clock.monotonic() - since_s > _STALLED_S:
                raise DeltawheelError(
                    f"the stream stands still at {found} of {wanted} pairs: look into the logs in "
                    f"{self.wheel.settings.state / 'logs'}"
                )
            self.clock.wait(_LOOK_EVERY_S)

    def require_running(self) -> None:
        """Raise what has ended the wheel, if something has."""
        if self._failure is not None:
            raise self._failure
        if self.wheel.stop.is_set():
            raise KeyboardInterrupt

    def check(self) -> None:
        """Make sure that every prompt has its one pair.

        Raises:
            DeltawheelError: one is missing or double: then no figure means anything.
        """
        progress = self.wheel.store.progress()
        paired = progress.outcomes.get(Outcome.PAIRED, 0)
        counts = {progress.prompts, paired, progress.pairs, self._num_fed}
        if len(counts) > 1 or progress.dead_letters:
            raise DeltawheelError(
                f"{self._num_fed} prompts fed, {progress.prompts} stored, {paired} paired, "
                f"{progress.pairs} pairs, {progress.dead_letters} dead letters: these must agree"
            )

    def fed(self, count: int) -> None:
        """Take note of prompts that somebody else has fed."""
        self._num_fed += count

    @property
    def num_fed(self) -> int:
        """How many prompts were fed, which is also the next prompt's number."""
        return self._num_fed

    def processes(self) -> dict[str, psutil.Process]:
        """Return the processes by name, each below its guard."""
        found: dict[str, psutil.Process] = {}
        for state in self.wheel.supervisor.states():
            with suppress(psutil.NoSuchProcess):  # it is being started again
                if state.guard is not None:
                    found[state.name] = psutil.Process(state.guard.pid).children()[0]
        return found

    def num_restarts(self, name: str) -> int:
        """Return how often a process was started again."""
        return sum(s.num_restarts for s in self.wheel.supervisor.states() if s.name == name)

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time that each process has used so far, in seconds."""
        used = {name: process.cpu_times() for name, process in self.processes().items()}
        used["client"] = psutil.Process().cpu_times()
        return {name: times.user + times.system for name, times in used.items()}

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory of each process, in MB of 10^6 bytes."""
        return {name: it.memory_info().rss / 1e6 for name, it in self.processes().items()}


@contextmanager
def running_stream(world: Staged, *, say: Callable[[str], None]) -> Iterator[Stream]:
    """Start the world's wheel, wait until all of it is ready, and stop it afterwards.

    Raises:
        DeltawheelError: a process cannot run; the message names its log.
    """
    settings = world.settings()
    with running_wheel(settings, say=say, cast=world.cast(settings)) as wheel:
        if not wheel.supervisor.wait_ready(READY_TIMEOUT_S, should_stop=wheel.stop.is_set):
            raise KeyboardInterrupt
        stream, over = Stream(wheel), threading.Event()
        keeper = threading.Thread(target=stream.keep_running, args=(over.is_set,), name="keeper")
        keeper.start()
        try:
            yield stream
        finally:
            over.set()
            keeper.join()
