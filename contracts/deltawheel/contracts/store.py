"""The store's ports: first writer wins, and what is published is what the store holds.

Every `add_…` inserts under the record's id and returns the stored record, which is the caller's
own or the one that was there before. All of them may raise `RetryLaterError` when the database is
busy or away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.cycle import Cycle, CycleState, CycleStep, StepName, StepState
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import PoolEvent
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.trace import Trace

__all__ = [
    "PAUSE_LEASE",
    "CycleLog",
    "DeltaStats",
    "Evidence",
    "Group",
    "GroupEnd",
    "Leases",
    "Ledger",
    "PairShelf",
    "PoolLog",
    "Progress",
    "RankedPair",
    "Store",
]

PAUSE_LEASE = "generation-paused"
"""Held by a cycle that needs the machine for itself; generation assigns nothing meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Everything the store holds of one (prompt, round): what curation closes."""

    prompt: Prompt
    assignment: Assignment | None = None
    traces: Mapping[str, Trace] = field(default_factory=dict)
    judgements: Sequence[Judgement] = ()
    slot_failures: Sequence[SlotFailed] = ()
    prompt_failure: PromptFailed | None = None
    ended_slots: frozenset[int] = frozenset()
    closing: Closing | None = None

    @property
    def has_ended(self) -> bool:
        """Whether every slot has ended, so that nothing more will come."""
        if self.assignment is None:
            return self.prompt_failure is not None
        return len(self.ended_slots) == len(self.assignment.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnd:
    """What closing a group writes, in one transaction."""

    closing: Closing
    pairs: Sequence[PreferencePair] = ()
    quarantined: Sequence[QuarantinedPair] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts of rows: how far the wheel is with what it has accepted."""

    prompts: int
    assigned: int
    traces: int
    judgements: int
    slot_failures: int
    pairs: int
    dead_letters: int
    completion_tokens: int
    outcomes: Mapping[Outcome, int]
    unpaired: Mapping[UnpairedCause, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    oldest_open_at: datetime | None = None

    @property
    def closed(self) -> int:
        """How many of the prompts have their outcome."""
        return sum(self.outcomes.values())

    @property
    def is_drained(self) -> bool:
        """Whether every accepted prompt has its outcome."""
        return self.closed == self.prompts

    @property
    def tie_share(self) -> float:
        """Return which share of the closed prompts tied; 0 while none is closed."""
        return self._share(self.unpaired.get(UnpairedCause.TIE, 0))

    def share(self, outcome: Outcome) -> float:
        """Return which share of the closed prompts ended so; 0 while none is closed."""
        return self._share(self.outcomes.get(outcome, 0))

    def _share(self, number: int) -> float:
        return number / self.closed if self.closed else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaStats:
    """The sample deltas of one generator pair on one dimension."""

    chosen_generator: str
    rejected_generator: str
    dimension: str
    num_pairs: int
    mean_delta: float
    mean_generator_delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPair:
    """A pair's id and the delta by which it was ranked."""

    pair_id: str
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The rows from which the audit derives one prompt's outcome anew.

    `lost_slots` have expired though the wheel turned all the while: nothing explains their wait.
    """

    key: PromptKey
    accepted_at: datetime
    num_slots: int | None
    traces: int
    judgements: int
    ended_slots: int
    judged_slots: int
    lost_slots: int
    pairs: int
    quarantined: int
    prompt_failures: int
    closings: Sequence[Outcome]


class Ledger(Protocol):
    """The stream's records, from accepted prompt to closed group."""

    def add_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Store prompts; return them as stored, in the order given."""
        ...

    def add_assignment(self, assignment: Assignment) -> Assignment:
        """Store who is asked, before anybody is."""
        ...

    def add_trace(self, trace: Trace) -> Trace:
        """Store a slot's trace."""
        ...

    def add_judgement(self, judgement: Judgement) -> Judgement:
        """Store a judgement and its slot's end in one transaction."""
        ...

    def add_slot_failure(self, failure: SlotFailed) -> SlotFailed | Judgement:
        """Store a slot's end; return what ended it, which may be an earlier judgement."""
        ...

    def add_prompt_failure(self, failure: PromptFailed) -> PromptFailed:
        """Store that nobody could be asked."""
        ...

    def close_groups(self, ends: Sequence[GroupEnd]) -> list[PreferencePair | QuarantinedPair]:
        """Store closings with their pairs; return the pair events that these groups now hold."""
        ...

    def add_dead_letter(
        self, letter: DeadLetter, slot_failure: SlotFailed | None = None
    ) -> SlotFailed | Judgement | None:
        """Store a dead letter, and in the same transaction the slot end that it causes.

        Return what ended the slot, which may be something earlier; None where it causes none.
        """
        ...

    def group(self, key: PromptKey) -> Group | None:
        """Return all rows of one (prompt, round), or None where the store has no such prompt."""
        ...

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace by its id."""
        ...

    def owed(self, *, before: datetime, limit: int) -> list[Record]:
        """Return events older than `before` whose effect is missing (ARCHITECTURE §4.3)."""
        ...

    def watch(self, *, at: datetime, longest_gap: timedelta, is_paused: bool) -> None:
        """Note that the wheel turns; a longer gap since the last note, or a pause, stood still."""
        ...

    def standstill(self, since: datetime, until: datetime) -> timedelta:
        """Return for how much of this span the wheel stood still."""
        ...

    def expired(self, *, at: datetime, limit: int) -> list[SlotFailed]:
        """Return an end for each open slot whose assignment expired, standstills not counted."""
        ...

    def progress(self) -> Progress:
        """Return the counts."""
        ...

    def evidence(self) -> Iterator[Evidence]:
        """Yield the evidence of every prompt."""
        ...

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        ...


class PairShelf(Protocol):
    """Stored pairs, for reading."""

    def pair(self, pair_id: str) -> PreferencePair | None:
        """Return one pair."""
        ...

    def pairs(self, *, after: str | None, limit: int) -> list[PreferencePair]:
        """Return a page of pairs by id; `after` is the last id of the page before."""
        ...

    def pairs_by_id(self, pair_ids: Sequence[str]) -> list[PreferencePair]:
        """Return these pairs, in the order given.

        Raises:
            LookupError: one of them is not stored.
        """
        ...

    def count_pairs(
        self, *, rubric_digest: str | None = None, since: datetime | None = None
    ) -> int:
        """Count the pairs stored under a rubric, or after a time."""
        ...

    def ranked_pairs(
        self,
        *,
        dimension: str,
        rubric_digest: str,
        judge_revision: str,
        paired_before: datetime,
        limit: int | None,
    ) -> list[RankedPair]:
        """Return ids by falling delta on the dimension, ties by id; `order_by` is a dimension."""
        ...

    def delta_stats(self) -> list[DeltaStats]:
        """Return mean deltas per generator pair and dimension, `order_by` among them."""
        ...


class PoolLog(Protocol):
    """The pool as an event log."""

    def add_pool_events(self, events: Sequence[PoolEvent]) -> None:
        """Append events; one whose id is there already changes nothing."""
        ...

    def pool_log(self) -> list[PoolEvent]:
        """Return all events in the order in which they were appended."""
        ...


class CycleLog(Protocol):
    """Cycles, their steps, and the promotions that came of them."""

    def add_cycle(self, cycle: Cycle) -> Cycle:
        """Store a requested cycle; one of the same wheel and cause is the same cycle."""
        ...

    def cycle(self, cycle_id: str) -> Cycle | None:
        """Return one cycle with its steps."""
        ...

    def cycles(self, limit: int) -> list[Cycle]:
        """Return the newest cycles, newest first."""
        ...

    def open_cycles(self) -> list[Cycle]:
        """Return the cycles that have not ended, oldest first."""
        ...

    def begin_step(
        self, cycle_id: str, name: StepName, *, token: str, at: datetime, lease_until: datetime
    ) -> CycleStep | None:
        """Take the step's lease and count the attempt; None if another holds it, or it is over."""
        ...

    def renew_step(self, cycle_id: str, name: StepName, *, token: str, until: datetime) -> bool:
        """Prolong the lease; False when the token no longer holds it."""
        ...

    def finish_step(
        self,
        cycle_id: str,
        name: StepName,
        *,
        token: str,
        state: StepState,
        at: datetime,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        is_counted: bool = True,
    ) -> bool:
        """Write the step's end and give its lease back; False when the token is fenced off.

        An attempt that was only asked to stop is not counted.
        """
        ...

    def end_cycle(
        self,
        cycle_id: str,
        *,
        state: CycleState,
        at: datetime,
        verdict: Verdict | None = None,
        error: str | None = None,
    ) -> None:
        """Write the cycle's state and, once it has ended, its verdict or error."""
        ...

    def add_promotion(self, promotion: Promotion) -> Promotion:
        """Store the decision to promote, before the alias moves."""
        ...

    def promotions(self) -> list[Promotion]:
        """Return all promotions, oldest first."""
        ...


class Leases(Protocol):
    """Named leases: at most one holder at a time, and none for longer than agreed."""

    def acquire_lease(self, name: str, *, token: str, at: datetime, until: datetime) -> bool:
        """Take or prolong a lease; False while another token holds it."""
        ...

    def release_lease(self, name: str, *, token: str) -> None:
        """Give a lease back; nothing happens if it is no longer held."""
        ...

    def is_leased(self, name: str, *, at: datetime) -> bool:
        """Tell whether somebody holds the lease."""
        ...


class Store(Ledger, PairShelf, PoolLog, CycleLog, Leases, Protocol):
    """All of them, as one database holds them."""

    def close(self) -> None:
        """Close the connections."""
        ...
