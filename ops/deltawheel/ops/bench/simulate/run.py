"""Playing one seed, from the first prompt until everything has come to its end."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.pool import declaration_events
from deltawheel.contracts.settings import (
    CurationSettings,
    GenerationSettings,
    MonitoringSettings,
    RuntimeSettings,
    Settings,
)
from deltawheel.infra import wiring
from deltawheel.infra.simulated.store import SimulatedStore
from deltawheel.infra.simulated.virtual_time import VirtualTimeLoop
from deltawheel.ops.bench.simulate.clients import Client
from deltawheel.ops.bench.simulate.invariants import violations
from deltawheel.ops.bench.simulate.plan import Plan
from deltawheel.ops.bench.simulate.process import adopt_tasks, owner_of_call
from deltawheel.ops.bench.simulate.services import TOPICS
from deltawheel.ops.bench.simulate.trouble import Trouble
from deltawheel.ops.bench.simulate.wheel import BEGAN_AT, SimulatedWheel, Wrappers

__all__ = [
    "WHEEL",
    "Report",
    "begin_world",
    "has_settled",
    "settings_of",
    "settles",
    "simulate",
    "stop_all",
]

WHEEL: Final = "simulated"
_NEVER_S: Final = 1e9
_LOOK_EVERY_S: Final = 2.0
_STOP_WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one seed."""

    seed: int
    plan: Plan
    violations: tuple[str, ...]
    digest: str
    lines: tuple[str, ...]
    virtual_s: float
    num_effects: int
    num_deaths: int
    num_redelivered: int

    @property
    def is_clean(self) -> bool:
        """Whether everything held."""
        return not self.violations


def simulate(
    seed: int,
    *,
    plan: Plan | None = None,
    wrappers: Wrappers | None = None,
    make_store: Callable[[], SimulatedStore] | None = None,
) -> Report:
    """Play one seed; the same seed, plan and code give the same report to the last line.

    Args:
        seed: From which all chance comes.
        plan: What to play; drawn from the seed if none is given.
        wrappers: What mutations put between processes and ports.
        make_store: Another store, such as one with a fault of its own.
    """
    random = wiring.seeded_random(f"simulate {seed}")
    plan = plan or Plan.of(random.seeded(random.token()))
    wheel = begin_world(
        random, plan=plan, settings=settings_of(plan), wrappers=wrappers, make_store=make_store
    )
    found = wheel.aio.run_until_complete(_play(wheel))
    wheel.aio.close()
    lines = wheel.trace.lines
    return Report(
        seed=seed,
        plan=plan,
        violations=tuple(found),
        digest=wheel.trace.digest,
        lines=tuple(lines),
        virtual_s=wheel.aio.time(),
        num_effects=wheel.weather.num_effects,
        num_deaths=sum(" DIES " in line for line in lines),
        num_redelivered=wheel.num_redelivered,
    )


def begin_world(
    random: Random,
    *,
    plan: Plan,
    settings: Settings,
    wrappers: Wrappers | None = None,
    make_store: Callable[[], SimulatedStore] | None = None,
) -> SimulatedWheel:
    """Make a wheel in which nothing runs yet, at the beginning of its time."""
    store = (make_store or _kept_store)()
    store.clear()
    delays = random.seeded(random.token())
    loop = VirtualTimeLoop(lambda: _delays_s(loop, delays))
    adopt_tasks(loop)
    wheel = SimulatedWheel(
        loop,
        plan=plan,
        random=random.seeded(random.token()),
        store=store,
        settings=settings,
        wrappers=wrappers or Wrappers(),
    )
    loop.set_exception_handler(lambda _, context: _note_failure(wheel, context))
    _declare_pool(wheel)
    return wheel


@cache
def _kept_store() -> SimulatedStore:
    """Return this process's store: made once, for its schema and its statements cost a second."""
    return wiring.simulated_store(wheel=WHEEL)


def settings_of(plan: Plan) -> Settings:
    """Return the settings under which a plan is played."""
    return _settings(plan.republish_after_s, is_healing=plan.is_healing)


@cache
def _settings(republish_after_s: float, *, is_healing: bool) -> Settings:
    return Settings(
        wheel=WHEEL,
        home=Path("/nonexistent"),
        generation=GenerationSettings(expire_after_s=_NEVER_S, concurrency=4),
        curation=CurationSettings(
            republish_after_s=republish_after_s if is_healing else _NEVER_S, batch_max_pairs=4
        ),
        monitoring=MonitoringSettings(refresh_s=60.0),
        runtime=RuntimeSettings(
            upkeep_interval_s=10.0, defer_base_s=5.0, defer_cap_s=60.0, defer_deadline_s=_NEVER_S
        ),
    )


def _delays_s(loop: VirtualTimeLoop, random: Random) -> tuple[float, float]:
    """Draw how long a call waits for its thread, and how long its answer is under way."""
    process = owner_of_call()
    thaw_s = max(0.0, process.frozen_until_s - loop.time()) if process else 0.0
    longest_s = 0.5 if random.random() < 0.05 else 0.002
    way_s = longest_s * random.random() if random.random() < 0.5 else 0.0
    return thaw_s + longest_s * random.random(), way_s


def _note_failure(wheel: SimulatedWheel, context: Mapping[str, Any]) -> None:
    wheel.failures.append(f"nobody looked after: {context.get('exception') or context['message']}")


def _declare_pool(wheel: SimulatedWheel) -> None:
    members = [
        Generator(
            name=name, revision="r1", endpoint="server:local", model=name, capability=capability
        )
        for name, capability in (("strong", 2.0), ("mid", 1.0), ("weak", 0.0))
    ]
    wheel.store.add_pool_events(declaration_events([], members, at=BEGAN_AT))


async def _play(wheel: SimulatedWheel) -> list[str]:
    plan = wheel.plan
    wheel.fill_seats()
    clients = [Client(wheel, f"{number} + {number} = ?") for number in range(plan.num_prompts)]
    arrivals = [
        asyncio.ensure_future(client.submit(plan.arrive_within_s * wheel.chance.random()))
        for client in clients
    ]
    trouble = Trouble(wheel)
    await trouble.befall()
    await asyncio.sleep(max(0.0, plan.trouble_within_s - wheel.aio.time()))
    wheel.weather.calm()
    wheel.trace.note("world", "CALM")
    deadline_s = wheel.aio.time() + plan.patience_s
    _, waiting = await asyncio.wait(arrivals, timeout=plan.patience_s)
    has_come = await settles(
        wheel, lambda: has_settled(wheel), until_s=deadline_s, look_every_s=_LOOK_EVERY_S
    )
    found = [f"{len(waiting)} clients were never answered"] if waiting else []
    if not has_come:
        found.append(
            f"after {plan.patience_s:.0f} s not everything is committed, or records are still "
            "deferred, or letters unsent"
        )
    found += await stop_all(wheel)
    found += violations(wheel, clients, trouble)
    for arrival in waiting:
        arrival.cancel()
    return found


async def settles(
    wheel: SimulatedWheel, is_settled: Callable[[], bool], *, until_s: float, look_every_s: float
) -> bool:
    """Wait until that is so; return whether it has come in time."""
    while not is_settled():
        if wheel.aio.time() >= until_s:
            return False
        await asyncio.sleep(look_every_s)
    return True


def has_settled(wheel: SimulatedWheel) -> bool:
    """Whether every group has committed all, every prompt has ended, and every letter is sent."""
    ends = wheel.bus.ends()
    for group, topics in TOPICS.items():
        names = {topic.of(WHEEL) for topic in topics}
        committed = wheel.bus.committed(group)
        if any(end > committed.get(at, 0) for at, end in ends.items() if at.topic in names):
            return False
    is_drained = wheel.store.progress().is_drained and not wheel.store.backlogs()
    return is_drained and not wheel.unsent_letters()


async def stop_all(wheel: SimulatedWheel) -> list[str]:
    """Stop every service, and see to it that nothing of them is left."""
    wheel.is_supervised = False
    lives = list(wheel.lives)
    for life in lives:
        life.stop()
    await asyncio.sleep(_STOP_WITHIN_S)
    return [
        f"{life.process.name} was stopped and still has {len(life.process.tasks)} tasks"
        for life in lives
        if life.process.tasks
    ]
