"""Probing: members of the pool answer held-out prompts, from which the ladder is updated.

A member is probed when it joins and at an interval. Of several processes of the service one does
it, under a lease, with a few prompts at the same time, so that production goes on beside it. With
`rotation.max_active` a member is probed while it is active, so that no more models are loaded.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import content_id, digest_of, seed_of
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.ports import ChatModel, Completion, Telemetry, Verifier
from deltawheel.contracts.probe import HeldOut, Probe, ProbeItems
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.contracts.trace import Trace
from deltawheel.services.generation.rotation import inactive
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["LEASE", "Prober", "Probing", "next_sets"]

log = logging.getLogger("deltawheel.generation")

LEASE: Final = "pool-probe"
_LOOK_INTERVAL_S: Final = 5.0
_PATIENCE_S: Final = 60.0
"""How long a member that could not be probed is left in peace."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What became of one prompt; `is_right` is None where the program cannot tell."""

    is_right: bool | None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def next_sets(held_out: HeldOut, member: Generator, past: Sequence[Probe]) -> list[ProbeItems]:
    """Return what a member is asked next: in each domain of its own, what it was asked longest ago.

    Prompts that it was never asked come first, in their order.
    """
    asked = {it.items_id: it.probed_at for it in past if it.reference == member.reference}
    ordered = sorted(
        held_out.sets, key=lambda it: asked[it.items_id].timestamp() if it.items_id in asked else 0
    )
    first: dict[str, ProbeItems] = {}
    for items in ordered:
        if member.domains is None or items.domain in member.domains:
            first.setdefault(items.domain, items)
    return [first[domain] for domain in sorted(first)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prober:
    """Asks one member held-out prompts, and has a program verify what it answers."""

    models: ChatModel
    verifier: Verifier
    clock: Clock
    telemetry: Telemetry
    concurrency: int

    async def probe(self, member: Generator, items: ProbeItems) -> Probe:
        """Ask the member all of these prompts.

        What it cannot answer, because its server refuses the request or a limit cuts it off, is
        wrong. Prompts of which the verifier cannot tell do not count.

        Raises:
            RetryLaterError: its server is away or busy, or serves another model.
            InvalidRecordError: the verifier could tell of no prompt.
        """
        room = asyncio.Semaphore(self.concurrency)

        async def ask(prompt: Prompt) -> _Mark:
            async with room:
                return await self._ask(member, prompt)

        tasks = [asyncio.ensure_future(ask(prompt)) for prompt in items.prompts]
        try:
            marks = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        told = [mark.is_right for mark in marks if mark.is_right is not None]
        if not told:
            raise InvalidRecordError(
                f"the verifier cannot tell right from wrong for any of the {len(marks)} prompts of "
                f"{items.domain!r} in probe.file: see judge.verifier"
            )
        self._count(member, items.domain, told)
        return Probe(
            generator=member.name,
            revision=member.revision,
            domain=items.domain,
            items_id=items.items_id,
            num_items=len(told),
            num_right=sum(told),
            prompt_tokens=sum(mark.prompt_tokens for mark in marks),
            completion_tokens=sum(mark.completion_tokens for mark in marks),
            probed_at=self.clock.now(),
        )

    async def _ask(self, member: Generator, prompt: Prompt) -> _Mark:
        trace_id = content_id("probe-trace", 1, prompt.prompt_id, member.name, member.revision)
        try:
            answer = await self.models.complete(member, prompt.messages, seed=seed_of(trace_id))
        except InvalidRecordError as error:
            log.info("%s cannot answer a prompt of the probe: %s", member.reference, error)
            return _Mark(is_right=False)
        trace = self._trace(trace_id, member, prompt, answer)
        verdict = self.verifier.verify(prompt, trace)
        return _Mark(
            is_right=None if verdict is None else verdict and not trace.is_cut_off,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    def _trace(self, trace_id: str, member: Generator, prompt: Prompt, answer: Completion) -> Trace:
        """Return the answer in the form that verifiers read; it is stored nowhere."""
        return Trace(
            trace_id=trace_id,
            prompt_id=prompt.prompt_id,
            round=prompt.round,
            slot=0,
            generator=member.name,
            generator_revision=member.revision,
            served_model=answer.served_model,
            sampling=member.sampling,
            seed=seed_of(trace_id),
            reasoning=answer.reasoning,
            answer=answer.answer,
            text_digest=digest_of(answer.reasoning + answer.answer),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finish_reason=answer.finish_reason,
            lineage_depth=member.lineage_depth,
            accepted_at=prompt.accepted_at,
            generated_at=self.clock.now(),
        )

    def _count(self, member: Generator, domain: str, told: Sequence[bool]) -> None:
        for is_right, result in ((True, "right"), (False, "wrong")):
            self.telemetry.count(
                "deltawheel_probe_items_total",
                told.count(is_right),
                generator=member.name,
                domain=domain,
                result=result,
            )


@dataclass(slots=True, kw_only=True)
class Probing:
    """Probes whoever is due, one set of prompts at a look; `on_change` is told after each probe."""

    settings: Settings
    held_out: HeldOut
    prober: Prober
    store: Store
    clock: Clock
    random: Random
    on_change: Callable[[], None] = lambda: None
    ticks: Sequence[Tick] = field(init=False)
    _token: str = field(init=False)
    _in_peace_until_s: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._token = self.random.token()
        self.ticks = (Tick(name="probing", interval_s=_LOOK_INTERVAL_S, run=self.look),)

    async def look(self) -> Sequence[Record]:
        """Probe the member that has waited longest, if one is due and nobody else probes."""
        if not await self._due() or not await self._may_ask():
            return []
        # Anew: whoever had the lease before may have probed it.
        if due := await self._due():
            await self._probe(*due[0])
        await offload(self.store.release_lease, LEASE, token=self._token)
        return []

    async def _due(self) -> list[tuple[Generator, ProbeItems]]:
        """Return who is to be asked what: first who never was, then who has waited longest."""
        past = await offload(self.store.probes)
        pool = Pool.from_log(await offload(self.store.pool_log))
        last_s = {
            (it.reference, it.domain): it.probed_at.timestamp()
            for it in sorted(past, key=lambda it: it.probed_at)
        }
        asked = self._next(pool, past)
        waiting = [
            (last_s.get((member.reference, items.domain), 0.0), member.name, items.domain, n)
            for n, (member, items) in enumerate(asked)
        ]
        due = sorted(it for it in waiting if self._is_due(it[0]))
        return [asked[n] for *_, n in due]

    def _next(self, pool: Pool, past: Sequence[Probe]) -> list[tuple[Generator, ProbeItems]]:
        at_s = self.clock.monotonic()
        inactive_now = inactive(pool, self.settings.rotation, at=self.clock.now())
        return [
            (member, items)
            for member in pool.standing()
            if member.name not in inactive_now
            if self._in_peace_until_s.get(member.reference, at_s) <= at_s
            for items in next_sets(self.held_out, member, past)
        ]

    def _is_due(self, last_s: float) -> bool:
        interval_s = self.settings.probe.interval_s
        waited_s = self.clock.now().timestamp() - last_s
        return not last_s or 0 < interval_s <= waited_s

    async def _may_ask(self) -> bool:
        """Whether nobody else probes and generation is not paused; for as long as that can take."""
        now, probe = self.clock.now(), self.settings.probe
        rounds = probe.num_items / probe.concurrency + 2
        until = now + timedelta(seconds=rounds * self.settings.generation.request_timeout_s)
        is_mine = await offload(
            self.store.acquire_lease, LEASE, token=self._token, at=now, until=until
        )
        return is_mine and not await offload(self.store.is_leased, PAUSE_LEASE, at=now)

    async def _probe(self, member: Generator, items: ProbeItems) -> None:
        try:
            probe = await self.prober.probe(member, items)
        except (InvalidRecordError, RetryLaterError) as error:
            self._in_peace_until_s[member.reference] = self.clock.monotonic() + _PATIENCE_S
            log.warning("%s could not be probed: %s", member.reference, error)
            return
        await offload(self.store.add_probes, [probe])
        self.on_change()
        said = "%s got %d of %d held-out prompts of %s right"
        log.info(said, member.reference, probe.num_right, probe.num_items, items.domain)
