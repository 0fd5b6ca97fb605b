"""The store's ports: first writer wins, and what is published is what the store holds.

Every `add_…` inserts many records under their ids in one transaction, and returns the stored ones
in the order given: the caller's own, or those that were there before. All of them may raise
`RetryLaterError` when the database is busy or away.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from deltawheel.contracts.anchor_runs import AnchorRuns
from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.calibration import Calibrations
from deltawheel.contracts.cycle import Cycle, CycleState, CycleStep, StepName, StepState
from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.evidence import Evidence, Snapshot
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import Generator, PoolEvent
from deltawheel.contracts.interruptions import Deferrals, Halts, Outages, UnsentLetters
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.judging_states import JudgingStates
from deltawheel.contracts.known_scores import ScoreMemory
from deltawheel.contracts.letters import Letters
from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.probe import LadderRows
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.topic_audit import HeldEvents
from deltawheel.contracts.trace import Trace
from deltawheel.contracts.transition import Transition, TransitionKind

__all__ = [
    "PAUSE_LEASE",
    "CycleLog",
    "DeltaStats",
    "Group",
    "GroupEnd",
    "Leases",
    "Ledger",
    "MemberTokens",
    "PairShelf",
    "PairYield",
    "PoolLog",
    "Progress",
    "RankedPair",
    "Store",
]

PAUSE_LEASE = "generation-paused"
"""Held by a cycle that needs the machine for itself; generation assigns nothing meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Everything the store holds of one (prompt, round): what curation closes.

    Traces and judgements are those of all attempts, since what succeeded is reused; failures, slot
    ends and closing are those of the current attempt alone. `opened_at` is when that attempt
    began: at the acceptance, or when an operator opened it.
    """

    prompt: Prompt
    opened_at: datetime
    attempt: int = 1
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

    @property
    def owed(self) -> list[Record]:
        """The events whose effect is missing, as `Ledger.owed` has them (ARCHITECTURE §4.3)."""
        if self.closing is not None:
            return []
        if self.assignment is None:
            return [self.prompt_failure or self.prompt]
        if self.has_ended:
            return [*self.slot_failures, *self.judgements][:1]
        open_slots = {slot.index for slot in self.assignment.slots} - self.ended_slots
        traces = [trace for trace in self.traces.values() if trace.slot in open_slots]
        is_untraced = len({trace.slot for trace in traces}) < len(open_slots)
        return [*([self.prompt] if is_untraced else []), *traces]


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
    unmoved_letters: int = 0

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
class MemberTokens:
    """What the stored traces of one member of the pool have taken, over all its revisions."""

    generator: str
    num_traces: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """What it has read and written."""
        return self.prompt_tokens + self.completion_tokens


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
class PairYield:
    """What has come of all work: the stored pairs, and the points of delta in them.

    Points are sums over pairs: of sample deltas by the rubric's order, and of generator deltas as
    they were when the pairs were made.
    """

    num_pairs: int
    sample_points: float
    generator_points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPair:
    """A pair's id and the delta by which it was ranked."""

    pair_id: str
    delta: float


class Ledger(Protocol):
    """The stream's records, from accepted prompt to closed group."""

    def add_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Store prompts; return them as stored, in the order given."""
        ...

    def add_assignments(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Store who is asked, before anybody is."""
        ...

    def add_traces(self, traces: Sequence[Trace]) -> list[Trace]:
        """Store slots' traces."""
        ...

    def add_judgements(self, judgements: Sequence[Judgement]) -> list[Judgement]:
        """Store judgements and, in the same transaction, the ends of their slots.

        They end the current attempt's slots. One that is stored already ends its slot too, if that
        is open: an attempt that an operator has opened reuses what was judged before.
        """
        ...

    def add_slot_failures(self, failures: Sequence[SlotFailed]) -> list[SlotFailed | Judgement]:
        """Store slots' ends; return what ended them, which may be an earlier judgement."""
        ...

    def add_prompt_failures(self, failures: Sequence[PromptFailed]) -> list[PromptFailed]:
        """Store that nobody could be asked."""
        ...

    def open_attempts(
        self,
        keys: Sequence[PromptKey],
        *,
        kind: TransitionKind,
        by: str,
        reason: str,
        at: datetime,
        expires_at: datetime,
    ) -> list[Transition]:
        """Open the next attempt at each prompt that has something to try again.

        That is a prompt whose current attempt has a failed slot, or closed as anything but paired.
        Judged slots count as judged in the new attempt from the start. Returns what was opened:
        asked twice, the second time nothing is, until the new attempt has failed as well.
        """
        ...

    def close_groups(self, ends: Sequence[GroupEnd]) -> list[PreferencePair | QuarantinedPair]:
        """Store closings with their pairs; return the pair events that these groups now hold."""
        ...

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        """Store dead letters, and in the same transaction the slot ends that they cause.

        Return, for each, what ended those slots, which may be something earlier.
        """
        ...

    def group(self, key: PromptKey) -> Group | None:
        """Return all rows of one (prompt, round), or None where the store has no such prompt."""
        ...

    def groups(self, keys: Sequence[PromptKey]) -> dict[PromptKey, Group]:
        """Return all rows of these, all of one moment; those that the store lacks are absent."""
        ...

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace by its id."""
        ...

    def owed(self, *, before: datetime, limit: int, since: datetime | None = None) -> list[Record]:
        """Return events older than `before` whose effect is missing (ARCHITECTURE §4.3).

        Those of the oldest prompts come first, from those on that were accepted at `since`.
        """
        ...

    def has_open_slots(self, generator: Generator) -> bool:
        """Tell whether a prompt that is not closed was dealt to this revision."""
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

    def member_tokens(self, *, since: datetime | None = None) -> list[MemberTokens]:
        """Return what each generator's traces have taken, or those written from a time on."""
        ...

    def evidence(self) -> Iterator[Evidence]:
        """Yield the evidence of every prompt."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open one moment of the store for the audit; nobody who writes waits for it."""
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

    def quarantined(self, *, after: str | None, limit: int) -> list[QuarantinedPair]:
        """Return a page, by id, of pairs that lie in quarantine and were not released since."""
        ...

    def quarantined_by_id(self, pair_ids: Sequence[str]) -> dict[str, QuarantinedPair]:
        """Return those of these that were ever quarantined."""
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

    def pair_yield(self) -> PairYield:
        """Return how many pairs there are, and how many points of delta they hold."""
        ...

    def delta_stats(self) -> list[DeltaStats]:
        """Return mean deltas per generator pair and dimension, `order_by` among them."""
        ...


class JudgementShelf(Protocol):
    """Stored judgements, for reading."""

    def jury_judgements(
        self, *, limit: int, before: Judgement | None = None, since: datetime | None = None
    ) -> list[Judgement]:
        """Return a page of those that keep what several judges found, newest first.

        `before` is the last one of the page before; none was judged before `since`.
        """
        ...

    def newest_judgements(self, limit: int) -> list[Judgement]:
        """Return the newest of all, newest first."""
        ...

    def judging_states(self) -> JudgingStates:
        """Count the traces that wait for the judge, and those that it has given up."""
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


class Store(
    Ledger,
    PairShelf,
    JudgementShelf,
    PoolLog,
    LadderRows,
    CycleLog,
    Calibrations,
    AnchorRuns,
    ScoreMemory,
    Leases,
    Outages,
    Deferrals,
    Halts,
    HeldEvents,
    UnsentLetters,
    Letters,
    Protocol,
):
    """All of them, as one database holds them."""

    def close(self) -> None:
        """Close the connections."""
        ...
