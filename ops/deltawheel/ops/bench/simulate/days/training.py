"""The training service in a simulation: blocking code, hence outside of the loop, and driving it.

Whenever it waits, everything else goes on for so long. That is the whole seam: its runner, its
schedule and its adoption are the real ones, its stages are not.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.infra.simulated.virtual_time import VirtualClock, VirtualTimeLoop
from deltawheel.ops.bench.simulate.days.stages import SimulatedStages
from deltawheel.ops.bench.simulate.process import KilledError, Process
from deltawheel.ops.bench.simulate.wheel import BEGAN_AT, SimulatedWheel
from deltawheel.services.training.runner import CycleRunner
from deltawheel.services.training.schedule import Schedule, crontab_trigger

__all__ = ["SimulatedTraining"]

_LATE_S: Final = 120.0
"""Whoever waits is woken late by so much, which makes days short; a busy machine does the same."""


class _MortalClock(VirtualClock):
    """The clock of a process that may die while it waits."""

    def __init__(self, loop: VirtualTimeLoop, *, began_at: datetime) -> None:
        super().__init__(loop, began_at=began_at)
        self.check: Callable[[], None] = lambda: None

    def wait(self, duration_s: float) -> None:
        super().wait(duration_s + _LATE_S)
        self.check()


class SimulatedTraining:
    """One life of the training service after another."""

    def __init__(
        self, wheel: SimulatedWheel, make_stages: Callable[[], SimulatedStages], *, random: Random
    ) -> None:
        self._wheel = wheel
        self._make_stages = make_stages
        self._random = random
        self._process: Process | None = None
        self._runner: CycleRunner | None = None
        self._schedule: Schedule | None = None

    def live(self) -> None:
        """Run cycles until this life is stopped, or dies."""
        wheel = self._wheel
        clock = _MortalClock(wheel.aio, began_at=BEGAN_AT)
        process = wheel.new_process("training", clock)
        clock.check = process.check
        store = wheel.store_of(process)
        self._process = process
        self._schedule = Schedule(settings=wheel.settings, store=store, clock=clock)
        self._runner = CycleRunner(
            settings=wheel.settings,
            settings_file=Path("/nonexistent"),
            store=store,
            producer=wheel.producer_of(process),
            clock=clock,
            random=self._random.seeded(self._random.token()),
            spawn=self._make_stages(),
        )
        try:
            self._runner.run()
        except KilledError:
            return
        finally:
            process.end()

    def stop(self) -> None:
        """Ask for a graceful stop."""
        if self._runner is not None:
            self._runner.stop.set()

    def die(self, why: str) -> None:
        """Die at the next moment at which it waits or does anything."""
        if self._process is not None:
            self._process.die(why)

    async def follow_calendar(self) -> None:
        """Ask for cycles when the calendar says so, as APScheduler does in a thread of its own."""
        cron = self._wheel.settings.training.cron
        assert cron is not None, "the days' settings name one"
        trigger = crontab_trigger(cron)
        clock = self._wheel.machine_clock()
        while True:
            now = clock.now()
            due = trigger.get_next_fire_time(None, now)
            assert due is not None, "a crontab line is always due again"
            await asyncio.sleep((due.astimezone(UTC) - now).total_seconds() + 1.0)
            self._ask(lambda schedule: schedule.request_by_calendar())

    async def follow_volume(self, every_s: float) -> None:
        """Ask for cycles once enough pairs have come."""
        while True:
            await asyncio.sleep(every_s)
            self._ask(lambda schedule: schedule.request_by_volume())

    def _ask(self, request: Callable[[Schedule], None]) -> None:
        if self._schedule is None or self._process is None or not self._process.is_alive:
            return
        try:
            request(self._schedule)
        except KilledError:
            return
