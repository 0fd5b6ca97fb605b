"""What generation does with a prompt and with a promotion."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deltawheel.contracts.assignment import Assignment, Slot
from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import most_wire_bytes
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.ids import digest_of, seed_of
from deltawheel.contracts.judgement import PromptFailed, SlotFailed
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.ports import ChatModel, Completion, Failpoints, Telemetry
from deltawheel.contracts.probe import HeldOut
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Group, Store
from deltawheel.contracts.topics import Topic
from deltawheel.contracts.trace import Trace
from deltawheel.services.generation.dealing import Dealing, View
from deltawheel.services.generation.rotation import deal
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.ledger import BatchedLedger
from deltawheel.services.runtime.offload import offload

__all__ = ["Generation"]

_HELD_OUT = (
    "it is held out: probe.file has it, and a probe would tell nothing of a model that was trained "
    "on it"
)


@dataclass(slots=True, kw_only=True)
class Generation:
    """Ask the generators that the rotation assigns, and store what they write.

    The assignment is stored before the first model call. A redelivered prompt reads it, finds the
    traces that are there, and asks only for what is missing. `on_dealt` hears, whenever the pool
    was read, which generators prompts are dealt to; `on_answer`, who has written a trace, and for
    whom another model did. A prompt that is held out for probes is dealt to nobody.
    """

    settings: Settings
    store: Store
    models: ChatModel
    judge_revision: str
    clock: Clock
    telemetry: Telemetry
    failpoints: Failpoints
    name: str = "generation"
    topics: tuple[Topic, ...] = (Topic.PROMPTS, Topic.PROMOTIONS)
    ticks: Sequence[Tick] = ()
    on_dealt: Callable[[Collection[Generator]], None] = lambda generators: None
    held_out: HeldOut | None = None
    on_answer: Callable[[Generator, ForeignModelError | None], None] = lambda generator, error: None
    _ledger: BatchedLedger = field(init=False)
    _rubric_digest: str = field(init=False)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _dealing: Dealing = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = BatchedLedger(self.store, clock=self.clock)
        self._dealing = Dealing(settings=self.settings, store=self.store, clock=self.clock)
        self._rubric_digest = self.settings.make_rubric().digest

    @property
    def concurrency(self) -> int:
        """How many prompts are in work at the same time."""
        return self.settings.generation.concurrency

    async def handle(self, record: Record) -> Sequence[Record]:
        """Fill the slots of a prompt, or take a promoted generator into the pool."""
        match record:
            case Prompt():
                return await self._answer(record)
            case Promotion():
                return await self._adopt(record)
            case _:
                raise InvalidRecordError(f"generation has no use for a {type(record).__name__}")

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        """A prompt that is given up ends its slots that nobody has filled.

        A trace that is too large for the broker fills none: no event will tell of it.
        """
        group = self.store.group(record.key) if isinstance(record, Prompt) else None
        if group is None or group.assignment is None:
            return ()
        room = self._room(group.prompt)
        answered = {t.slot for t in group.traces.values() if not self._excess(t, room)}
        filled = group.ended_slots | answered
        return [
            _failure(group, slot, reason, at)
            for slot in group.assignment.slots
            if slot.index not in filled
        ]

    async def _answer(self, prompt: Prompt) -> Sequence[Record]:
        group = await self._ledger.group(prompt.key)
        if group is None or group.prompt.wheel != self.settings.wheel:
            raise InvalidRecordError(
                f"the store holds no prompt {prompt.prompt_id} of round {prompt.round}: "
                "submit it through the gateway"
            )
        if group.prompt_failure is not None:
            return [group.prompt_failure]
        # Also where it was dealt already: the others that are dealt to must be known.
        view = await self._look()
        assignment = group.assignment or await self._assign(group, view)
        if isinstance(assignment, PromptFailed):
            return [assignment]
        return await self._fill(group, assignment)

    async def _assign(self, group: Group, view: View) -> Assignment | PromptFailed:
        if view.is_paused:
            raise RetryLaterError("generation is paused while a cycle trains on this machine")
        now = self.clock.now()
        if self.held_out is not None and self.held_out.holds(group.prompt):
            return await self._give_up(group, now, _HELD_OUT)
        table = self._dealing.table(view, group.prompt.domain)
        if not table.pairs and self._dealing.waits_for_absent(view, group.prompt.domain):
            raise RetryLaterError(f"too few generators stand: {_who_left(view.pool)}")
        if not table.pairs and await self._has_waited_too_long(group, now):
            return await self._give_up(group, now, self._waited(group.prompt.domain))
        stronger, weaker = deal(group.prompt.key, table, self.settings.rotation)
        assignment = Assignment(
            prompt_id=group.prompt.prompt_id,
            round=group.prompt.round,
            slots=(Slot(index=0, generator=stronger), Slot(index=1, generator=weaker)),
            judge_revisions=(self.judge_revision,),
            rubric_digest=self._rubric_digest,
            generator_delta=table.ladder.delta(stronger, weaker),
            policy=self.settings.rotation.policy,
            accepted_at=group.prompt.accepted_at,
            assigned_at=now,
            expires_at=now + timedelta(seconds=self.settings.generation.expire_after_s),
        )
        stored = await self._ledger.add_assignment(assignment)
        await self.failpoints.reach(Failpoint.GENERATION_ASSIGNED, stored.prompt_id)
        return stored

    async def _has_waited_too_long(self, group: Group, now: datetime) -> bool:
        """Whether this attempt has waited past its expiry, less what the wheel stood still."""
        stood = await offload(self.store.standstill, group.opened_at, now)
        waited_s = (now - group.opened_at - stood).total_seconds()
        return waited_s > self.settings.generation.expire_after_s

    def _waited(self, domain: str) -> str:
        return (
            f"no two generators could be paired for domain {domain!r} within "
            f"generation.expire_after_s ({self.settings.generation.expire_after_s:.0f} s)"
        )

    async def _give_up(self, group: Group, now: datetime, reason: str) -> PromptFailed:
        failure = PromptFailed(
            prompt_id=group.prompt.prompt_id,
            round=group.prompt.round,
            attempt=group.attempt,
            reason=reason,
            accepted_at=group.prompt.accepted_at,
            failed_at=now,
        )
        return await self._ledger.add_prompt_failure(failure)

    def forget_pool(self) -> None:
        """Have the pool read anew for the next prompt: it has changed."""
        self._dealing.forget()

    async def _look(self) -> View:
        """Read pool and pause anew once they are old: one prompt does it for all that wait."""
        async with self._looking:
            view, is_new = await self._dealing.look()
            if is_new:
                self.on_dealt(view.dealt)
            return view

    async def _fill(self, group: Group, assignment: Assignment) -> Sequence[Record]:
        room = self._room(group.prompt)
        ends = await asyncio.gather(
            *(self._fill_slot(group, assignment, slot, room) for slot in assignment.slots),
            return_exceptions=True,
        )
        errors = [end for end in ends if isinstance(end, BaseException)]
        # One slot's wait must not hide what nobody knows of the other.
        for error in sorted(errors, key=lambda error: isinstance(error, RetryLaterError)):
            raise error
        return [end for end in ends if isinstance(end, Record)]

    async def _fill_slot(
        self, group: Group, assignment: Assignment, slot: Slot, room: int
    ) -> Record:
        trace_id = assignment.trace_id(slot.index)
        if found := group.traces.get(trace_id):
            self.telemetry.count("deltawheel_effects_found_total", effect="trace")
            return found
        for failure in group.slot_failures:
            if failure.slot == slot.index:
                self.telemetry.count("deltawheel_effects_found_total", effect="slot_failure")
                return failure
        seed = seed_of(trace_id)
        try:
            completion = await self.models.complete(
                slot.generator, group.prompt.messages, seed=seed
            )
        except ForeignModelError as error:
            self.on_answer(slot.generator, error)
            raise
        except InvalidRecordError as error:
            return await self._fail_slot(group, slot, str(error))
        self.on_answer(slot.generator, None)
        trace = self._trace(assignment, slot, trace_id, seed, completion)
        self.telemetry.count(
            "deltawheel_completion_tokens_total",
            completion.completion_tokens,
            generator=slot.generator.name,
        )
        if reason := self._excess(trace, room):
            return await self._fail_slot(group, slot, reason)
        return await self._ledger.add_trace(trace)

    def _room(self, prompt: Prompt) -> int:
        """Return how many bytes a trace may have: a pair's event holds two, and the prompt."""
        limit = self.settings.broker.max_message_bytes
        return max(0, limit - most_wire_bytes(prompt)) // 2

    def _excess(self, trace: Trace, room: int) -> str | None:
        """Say why a trace is too large, if it is.

        Stored it would be owed for ever, for the broker takes no event of it.
        """
        if (size := most_wire_bytes(trace)) <= room:
            return None
        limit = self.settings.broker.max_message_bytes
        return (
            f"the trace has {size} bytes, and broker.max_message_bytes ({limit}) leaves {room} for "
            "each side of a pair: raise that, or lower the generator's sampling.max_tokens"
        )

    def _trace(
        self, assignment: Assignment, slot: Slot, trace_id: str, seed: int, completion: Completion
    ) -> Trace:
        return Trace(
            trace_id=trace_id,
            prompt_id=assignment.prompt_id,
            round=assignment.round,
            slot=slot.index,
            generator=slot.generator.name,
            generator_revision=slot.generator.revision,
            served_model=completion.served_model,
            sampling=slot.sampling,
            seed=seed,
            reasoning=completion.reasoning,
            answer=completion.answer,
            text_digest=digest_of(completion.reasoning + completion.answer),
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            finish_reason=completion.finish_reason,
            lineage_depth=slot.generator.lineage_depth,
            accepted_at=assignment.accepted_at,
            generated_at=self.clock.now(),
        )

    async def _fail_slot(self, group: Group, slot: Slot, reason: str) -> Record:
        failure = _failure(group, slot, reason, self.clock.now())
        return await self._ledger.add_slot_failure(failure)

    async def _adopt(self, announced: Promotion) -> Sequence[Record]:
        """Take in what the store holds: a promotion that nobody decided on names no member."""
        decided = await offload(self.store.promotions)
        promotion = next(
            (row for row in decided if row.promotion_id == announced.promotion_id), None
        )
        if promotion is None:
            raise InvalidRecordError(
                f"the store holds no decision to promote version {announced.version} of "
                f"{announced.model_name}"
            )
        event = PoolEvent(
            kind=PoolEventKind.PROMOTED,
            generator=promotion.generator,
            reason=f"version {promotion.version} of {promotion.model_name} was promoted",
            at=self.clock.now(),
            cause=promotion.promotion_id,
        )
        await self.models.load(promotion.generator)
        await offload(self.store.add_pool_events, [event])
        self.forget_pool()
        return []


def _who_left(pool: Pool) -> str:
    return ", ".join(f"{name} has left ({why})" for name, why in sorted(pool.absent.items()))


def _failure(group: Group, slot: Slot, reason: str, at: datetime) -> SlotFailed:
    return SlotFailed(
        prompt_id=group.prompt.prompt_id,
        round=group.prompt.round,
        slot=slot.index,
        attempt=group.attempt,
        reason=reason,
        accepted_at=group.prompt.accepted_at,
        failed_at=at,
    )
