"""What befalls the wheel from outside: outages, zombies, rebalances, garbage, clocks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.store import Store
from deltawheel.contracts.transition import TransitionKind
from deltawheel.ops.bench.simulate.doors import name_of
from deltawheel.ops.bench.simulate.garbage import make_garbage
from deltawheel.ops.bench.simulate.plan import Fault
from deltawheel.ops.bench.simulate.process import KilledError, Process
from deltawheel.ops.bench.simulate.services import LOOPS, TOPICS
from deltawheel.ops.bench.simulate.wheel import Life, SimulatedWheel
from deltawheel.ops.outbox import Outbox
from deltawheel.ops.replay import Mover
from deltawheel.services.curation.owed import republish_all

__all__ = ["Trouble"]

_LONGEST_JUMP_S: Final = 600
_NEVER: Final = timedelta(days=10_000)


class Trouble:
    """Draws from the plan's faults, one after another, and makes them happen."""

    def __init__(self, wheel: SimulatedWheel, *, longest_s: float = 30.0) -> None:
        self._wheel = wheel
        self._longest_s = longest_s
        self._chance = wheel.random.seeded(wheel.random.token())
        self.garbage: list[OutboundMessage] = []
        self._kinds: Mapping[Fault, Callable[[], Awaitable[None]]] = {
            Fault.STOP: self._stop,
            Fault.BLACKOUT: self._blackout,
            Fault.ZOMBIE: self._zombie,
            Fault.FREEZE: self._freeze,
            Fault.REBALANCE: self._rebalance,
            Fault.STORE_OUTAGE: self._store_outage,
            Fault.BROKER_OUTAGE: self._broker_outage,
            Fault.BROKER_LOSS: self._broker_loss,
            Fault.REDELIVERY: self._redelivery,
            Fault.GARBAGE: self._garbage,
            Fault.MODELS_OUTAGE: self._models_outage,
            Fault.REPLAY: self._replay,
            Fault.CLOCK_JUMP: self._clock_jump,
        }

    async def befall(self) -> None:
        """Let the plan's troubles happen, at moments of its span."""
        plan, wheel = self._wheel.plan, self._wheel
        wheel.bus.is_fencing = Fault.UNFENCED not in plan.faults
        possible = [fault for fault in Fault if fault in plan.faults and fault in self._kinds]
        if not possible:
            return
        moments = sorted(
            plan.trouble_within_s * self._chance.random() for _ in range(plan.num_troubles)
        )
        for at_s in moments:
            await asyncio.sleep(max(0.0, at_s - wheel.aio.time()))
            await self.happen(self._chance.choice(possible))

    async def happen(self, fault: Fault) -> None:
        """Let one of them happen, and be over."""
        self._wheel.trace.note("world", f"TROUBLE {fault.value}")
        await self._kinds[fault]()

    def _some_life(self) -> Life | None:
        """Return a life of a service that consumes, if there is one at the moment."""
        lives = [life for life in self._wheel.lives if life.loop and life.process.is_alive]
        return self._chance.choice(lives) if lives else None

    def _a_while_s(self, factor: float = 1.0) -> float:
        return factor * self._longest_s * self._chance.random()

    async def _stop(self) -> None:
        if life := self._some_life():
            life.stop()

    async def _blackout(self) -> None:
        for life in list(self._wheel.lives):
            life.process.die("in a blackout")

    async def _zombie(self) -> None:
        """Replace a member that still lives; it goes on for a while, awake or after a freeze."""
        life = self._some_life()
        if life is None or not life.is_seated or life.consumer is None:
            return
        life.is_seated = False
        self._wheel.bus.expel(life.consumer)
        if self._chance.random() < 0.5:
            self._freeze_for(life, self._a_while_s())
        self._wheel.start(life.service)
        self._later(self._a_while_s(2.0), lambda: life.process.die("as a zombie"))

    async def _freeze(self) -> None:
        if (life := self._some_life()) is None or life.consumer is None:
            return
        duration_s = self._a_while_s()
        self._freeze_for(life, duration_s)
        timeout_s = self._wheel.settings.runtime.session_timeout_s
        if duration_s > timeout_s:
            consumer = life.consumer
            self._later(timeout_s, lambda: self._wheel.bus.expel(consumer))

    def _freeze_for(self, life: Life, duration_s: float) -> None:
        life.process.frozen_until_s = self._wheel.aio.time() + duration_s
        self._wheel.trace.note(life.process.name, f"freezes for {duration_s:.3f} s")

    async def _rebalance(self) -> None:
        service = self._chance.choice(list(LOOPS))
        second = self._wheel.start(service, is_seated=False)
        is_gentle = self._chance.random() < 0.5

        def leave() -> None:
            if not second.process.is_alive:
                return
            if is_gentle:
                second.stop()
            else:
                second.process.die("as the second member")

        self._later(self._a_while_s(), leave)

    async def _store_outage(self) -> None:
        self._wheel.weather.is_store_down = True
        await asyncio.sleep(self._a_while_s())
        self._wheel.weather.is_store_down = False

    async def _broker_outage(self) -> None:
        self._wheel.bus.is_down = True
        await asyncio.sleep(self._a_while_s())
        self._wheel.bus.is_down = False

    async def _models_outage(self) -> None:
        self._wheel.weather.are_models_down = True
        await asyncio.sleep(self._a_while_s())
        self._wheel.weather.are_models_down = False

    async def _broker_loss(self) -> None:
        """Play what the supervisor does when a memory-only broker is lost: stop, refill, start."""
        wheel = self._wheel
        wheel.is_supervised = False
        wheel.bus.is_down = True
        for life in list(wheel.lives):
            life.stop()
        await asyncio.sleep(self._a_while_s())
        for life in list(wheel.lives):
            life.process.die("because it did not stop in time")
        wheel.bus.is_down = False
        wheel.lose_broker()
        producer = wheel.bus.producer()
        clock = wheel.machine_clock()
        num_sent = republish_all(wheel.store, producer, clock, wheel=wheel.settings.wheel)
        wheel.trace.note("supervisor", f"refills the broker with {num_sent} owed events")
        wheel.is_supervised = True
        wheel.fill_seats()

    async def _redelivery(self) -> None:
        published = self._wheel.published.messages
        if published and self._send(message := self._chance.choice(published)):
            self._wheel.trace.note("world", f"delivers again {name_of(message)}")

    async def _garbage(self) -> None:
        topic = self._chance.choice(TOPICS["monitoring"])
        garbage = make_garbage(topic, self._chance, wheel=self._wheel.settings.wheel)
        if self._send(garbage):
            self.garbage.append(garbage)
            self._wheel.trace.note("world", f"publishes garbage {name_of(garbage)}")

    def _send(self, message: OutboundMessage) -> bool:
        try:
            self._wheel.bus.producer().publish([message])
        except RetryLaterError:
            return False
        self._wheel.note_published([])
        return True

    async def _replay(self) -> None:
        """Have an operator's command do its work, which can die or fail like any process."""
        wheel = self._wheel
        process = wheel.new_process("operator", wheel.machine_clock())
        store = wheel.store_of(process)
        try:
            if self._chance.random() < 0.5:
                self._open_attempts(store, process)
            else:
                mover = Mover(
                    store=store,
                    outbox=Outbox(lambda: wheel.producer_of(process)),
                    settings=wheel.settings,
                    clock=process.clock,
                    by="operator",
                    reason="simulated",
                )
                for step in mover.replay(list(store.letter_entries())):
                    wheel.trace.note(process.name, f"{step.action.value} {step.entry_id[-8:]}")
        except (RetryLaterError, KilledError) as error:
            wheel.trace.note(process.name, f"gives up: {error}")
        finally:
            process.end()

    def _open_attempts(self, store: Store, process: Process) -> None:
        """Try again whatever has failed, even while the rest of its prompt is in work."""
        opened = store.open_attempts(
            [row.key for row in self._wheel.store.evidence()],
            kind=TransitionKind.REPLAY,
            by="operator",
            reason="simulated",
            at=process.clock.now(),
            expires_at=process.clock.now() + _NEVER,
        )
        self._wheel.trace.note(process.name, f"opened {len(opened)} attempts")

    async def _clock_jump(self) -> None:
        lives = [life for life in self._wheel.lives if life.process.is_alive]
        if lives:
            life = self._chance.choice(lives)
            jump_s = self._chance.randrange(-_LONGEST_JUMP_S, _LONGEST_JUMP_S)
            life.process.clock.wrong_by += timedelta(seconds=jump_s)
            self._wheel.trace.note(life.process.name, f"has a clock that jumps by {jump_s} s")

    def _later(self, after_s: float, act: Callable[[], object]) -> None:
        self._wheel.aio.call_later(after_s, act)
