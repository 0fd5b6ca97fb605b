"""Playing many days, from one seed."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.settings import (
    CurationSettings,
    GenerationSettings,
    MonitoringSettings,
    RuntimeSettings,
    Settings,
    TrainingSettings,
)
from deltawheel.infra import wiring
from deltawheel.ops.bench.simulate.clients import Client
from deltawheel.ops.bench.simulate.days.accounts import cycle_violations
from deltawheel.ops.bench.simulate.days.registry import SimulatedRegistry
from deltawheel.ops.bench.simulate.days.stages import SimulatedStages
from deltawheel.ops.bench.simulate.days.training import SimulatedTraining
from deltawheel.ops.bench.simulate.invariants import violations
from deltawheel.ops.bench.simulate.plan import Fault, Plan
from deltawheel.ops.bench.simulate.run import WHEEL, begin_world, has_settled, settles, stop_all
from deltawheel.ops.bench.simulate.trouble import Trouble
from deltawheel.ops.bench.simulate.wheel import SimulatedWheel

__all__ = ["DaysReport", "simulate_days", "unsettled"]

DAY_S: Final = 86_400.0
_PROMPTS_A_DAY: Final = 24
_LOOK_EVERY_S: Final = 60.0
_NEVER_S: Final = 1e9
_OUTAGES: Final = (
    Fault.STORE_OUTAGE,
    Fault.BROKER_OUTAGE,
    Fault.MODELS_OUTAGE,
    Fault.BROKER_LOSS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaysReport:
    """What came of some days."""

    seed: int
    days: int
    violations: tuple[str, ...]
    digest: str
    num_prompts: int
    num_pairs: int
    num_cycles: int
    num_failed_cycles: int
    num_promotions: int
    num_rollbacks: int
    num_deaths: int
    virtual_s: float

    @property
    def is_clean(self) -> bool:
        """Whether everything held."""
        return not self.violations


def simulate_days(
    seed: int, *, days: int, at_day: Callable[[int], None] = lambda day: None
) -> DaysReport:
    """Play so many days of a wheel that trains every night; `at_day` hears of each that is over."""
    random = wiring.seeded_random(f"days {seed}")
    plan = Plan(
        num_prompts=days * _PROMPTS_A_DAY,
        arrive_within_s=days * DAY_S,
        trouble_within_s=days * DAY_S,
        partitions=2,
        faults=frozenset({Fault.CRASH, Fault.MODELS_FLAKY, Fault.JUDGE_FLAKY, Fault.STORE_BUSY}),
        crash_share=0.001,
        flaky_share=0.01,
        longest_nap_s=600.0,
        patience_s=3 * DAY_S,
    )
    with tempfile.TemporaryDirectory(prefix="deltawheel-days-") as home:
        world = begin_world(random, plan=plan, settings=_settings(Path(home)))
        return _Days(seed, days, world, random, at_day).play()


def _settings(home: Path) -> Settings:
    return Settings(
        wheel=WHEEL,
        home=home,
        generation=GenerationSettings(expire_after_s=_NEVER_S, concurrency=4),
        curation=CurationSettings(republish_after_s=3_600.0),
        monitoring=MonitoringSettings(refresh_s=3_600.0),
        training=TrainingSettings(cron="0 3 * * *", min_new_pairs=40, lease_s=900.0),
        runtime=RuntimeSettings(
            upkeep_interval_s=1_200.0,
            breaker_cap_s=600.0,
            backoff_cap_s=600.0,
            defer_deadline_s=_NEVER_S,
        ),
    )


async def unsettled(wheel: SimulatedWheel) -> list[str]:
    """Wait until nothing is open, and say so if that does not come within the plan's patience."""
    has_come = await settles(
        wheel,
        lambda: has_settled(wheel) and not wheel.store.open_cycles(),
        until_s=wheel.aio.time() + wheel.plan.patience_s,
        look_every_s=_LOOK_EVERY_S,
    )
    return (
        []
        if has_come
        else [f"it has not settled within {wheel.plan.patience_s:.0f} s without faults"]
    )


class _Days:
    """The director: what happens outside of training, which drives the loop."""

    def __init__(
        self,
        seed: int,
        days: int,
        wheel: SimulatedWheel,
        random: Random,
        at_day: Callable[[int], None],
    ) -> None:
        self._seed = seed
        self._days = days
        self._wheel = wheel
        self._chance = random.seeded(random.token())
        self._at_day = at_day
        self._registry = SimulatedRegistry()
        self._training = SimulatedTraining(
            wheel, self._stages, random=random.seeded(random.token())
        )
        self._most_tasks = 0
        self._is_over = False

    def play(self) -> DaysReport:
        """Let training live, again and again, until the director says that it is over."""
        loop = self._wheel.aio
        directing = loop.create_task(self._direct())
        while not self._is_over:
            self._training.live()
            loop.run_until_complete(asyncio.sleep(5.0))
        found = loop.run_until_complete(directing)
        loop.close()
        return self._report(found)

    def _stages(self) -> SimulatedStages:
        wheel = self._wheel
        return SimulatedStages(
            store=wheel.store,
            registry=self._registry,
            nature=wheel.nature,
            weather=wheel.weather,
            clock=wheel.machine_clock(),
            random=self._chance,
            note=partial(wheel.trace.note, "stage"),
        )

    async def _direct(self) -> list[str]:
        wheel, plan = self._wheel, self._wheel.plan
        wheel.fill_seats()
        clients = [Client(wheel, f"day's prompt {number}") for number in range(plan.num_prompts)]
        beside = [
            asyncio.ensure_future(self._training.follow_calendar()),
            asyncio.ensure_future(self._training.follow_volume(1_800.0)),
        ]
        arrivals = [
            asyncio.ensure_future(client.submit(plan.arrive_within_s * self._chance.random()))
            for client in clients
        ]
        trouble = Trouble(wheel, longest_s=4 * 3_600.0)
        for day in range(self._days):
            await self._live_through(day, trouble)
            self._at_day(day + 1)
        wheel.weather.calm()
        _, waiting = await asyncio.wait(arrivals, timeout=plan.patience_s)
        found = await unsettled(wheel)
        for task in beside:
            task.cancel()
        self._is_over = True
        self._training.stop()
        found += [f"{len(waiting)} clients were never answered"] if waiting else []
        found += await stop_all(wheel)
        found += violations(wheel, clients, trouble)
        found += cycle_violations(wheel, self._registry)
        found += self._growth()
        return found

    async def _live_through(self, day: int, trouble: Trouble) -> None:
        """One outage, one restart of everything, a judge that drifts, and sometimes a rollback."""
        wheel, chance = self._wheel, self._chance
        moments = sorted(DAY_S * (day + chance.random()) for _ in range(4))
        acts: list[Callable[[], object]] = [self._restart, self._drift, self._roll_back]
        outage = chance.choice(_OUTAGES)
        for at_s in moments:
            await asyncio.sleep(max(0.0, at_s - wheel.aio.time()))
            if acts and chance.random() < 0.75:
                acts.pop(0)()
            elif outage is not None:
                await trouble.happen(outage)
        self._most_tasks = max(self._most_tasks, sum(len(it.process.tasks) for it in wheel.lives))
        await asyncio.sleep(max(0.0, DAY_S * (day + 1) - wheel.aio.time()))

    def _restart(self) -> None:
        for life in list(self._wheel.lives):
            life.stop()
        if self._chance.random() < 0.5:
            self._training.stop()
        else:
            self._training.die("with its machine")

    def _drift(self) -> None:
        self._wheel.weather.judge_shift += 0.05
        self._wheel.trace.note("judge", f"has drifted by {self._wheel.weather.judge_shift:.2f}")

    def _roll_back(self) -> None:
        """Move the alias by hand to an earlier version, or to the base."""
        if self._chance.random() < 0.5:
            return
        earlier = [None, *self._registry.versions.values()]
        self._registry.move_by_hand(self._chance.choice(earlier))
        self._wheel.trace.note("operator", f"moves the alias to {self._registry.champion}")

    def _growth(self) -> Iterator[str]:
        """What is bounded in a wheel that stands idle must not have grown with the days."""
        if self._most_tasks > 200:
            yield f"{self._most_tasks} tasks were at work at the end of a day"
        if owed := self._wheel.store.owed(before=self._wheel.machine_clock().now(), limit=10):
            yield f"{len(owed)} events are owed after everything has ended"

    def _report(self, found: list[str]) -> DaysReport:
        wheel = self._wheel
        cycles = wheel.store.cycles(10_000)
        return DaysReport(
            seed=self._seed,
            days=self._days,
            violations=tuple(found),
            digest=wheel.trace.digest,
            num_prompts=wheel.plan.num_prompts,
            num_pairs=wheel.store.progress().pairs,
            num_cycles=len(cycles),
            num_failed_cycles=sum(cycle.error is not None for cycle in cycles),
            num_promotions=len(wheel.store.promotions()),
            num_rollbacks=self._registry.num_rollbacks,
            num_deaths=sum(" DIES " in line for line in wheel.trace.lines),
            virtual_s=wheel.aio.time(),
        )
