"""Evidence: what the audit reads of a store, all of one moment, and what it may find there."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import PromptKey

__all__ = [
    "Evidence",
    "Finding",
    "FindingKind",
    "HeldPair",
    "HeldSlotEnd",
    "PromptRows",
    "Snapshot",
    "TiedScores",
]

FindingKind = Literal["missing", "double", "contradictory", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What does not add up, and where.

    `rows` name the rows that it is about, by slot or id; `prompt_id` and `round` are None where it
    is about no single prompt.
    """

    kind: FindingKind
    fact: str
    prompt_id: str | None = None
    round: int | None = None
    attempt: int | None = None
    rows: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """What is stored of one attempt at one prompt, counted.

    A million prompts come in a few dozen shapes: all fields but the first two are judged
    together, and once for each combination. Slot ends, failures and closing are those of the
    attempt; traces, judgements and pairs those of all. `num_transitions` and `attempt` are told by
    the rows of transitions alone, the marks by the prompt's own row. `opened_at` is when the
    attempt began, and None of a first one that has ended.
    """

    key: PromptKey
    opened_at: datetime | None
    attempt: int = 1
    num_transitions: int = 0
    is_current: bool = True
    marked_attempt: int = 1
    is_mark_right: bool = True
    num_slots: int | None = None
    traces: int = 0
    judgements: int = 0
    ended_slots: int = 0
    failed_slots: int = 0
    lost_slots: int = 0
    pairs: int = 0
    quarantined: int = 0
    prompt_failures: int = 0
    outcome: str | None = None
    cause: str | None = None
    was_paired: bool = False
    """Whether an earlier attempt closed as paired, which a closing in that moment may do."""

    @property
    def judged_slots(self) -> int:
        """How many of the attempt's slots ended judged."""
        return self.ended_slots - self.failed_slots

    @property
    def is_closed(self) -> bool:
        """Whether the attempt has its outcome."""
        return self.outcome is not None


class HeldSlotEnd(NamedTuple):
    """A stored slot end."""

    slot: int
    attempt: int
    kind: str
    trace_id: str | None
    rubric_digest: str | None


class HeldPair(NamedTuple):
    """A stored pair, in the shelf or in quarantine, with the traces that its payload holds."""

    pair_id: str
    is_quarantined: bool
    traces: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRows:
    """The rows of one prompt by their ids: what is read of those that stand out."""

    key: PromptKey
    slot_ends: Sequence[HeldSlotEnd] = ()
    pairs: Sequence[HeldPair] = ()
    cut_off: frozenset[str] = frozenset()
    """Traces that ended where a limit fell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedScores:
    """All judgements of a prompt that closed as a tie, in their wire form."""

    key: PromptKey
    attempt: int
    judgements: Sequence[Mapping[str, Any]]


class Snapshot(Protocol):
    """One moment of the store, read while others write; `contents` alone reads all payloads."""

    def evidence(self) -> Iterator[Evidence]:
        """Yield the current attempt at every prompt."""
        ...

    def superseded(self) -> Iterator[Evidence]:
        """Yield earlier attempts that have a closing."""
        ...

    def totals(self) -> Mapping[str, int]:
        """Return the rows of each table whose rows evidence counts, by the evidence's field."""
        ...

    def strays(self, *, of: Collection[str]) -> Iterator[Finding]:
        """Yield rows that name what is not there, and keys that are there twice.

        `of` are the totals that evidence does not explain.
        """
        ...

    def unproven(self, keys: Sequence[PromptKey] | None) -> Iterator[Finding]:
        """Yield judged slots without their judgement, and judgements without their trace.

        Of these prompts, or of all, which takes its time.
        """
        ...

    def contents(self) -> Iterator[Finding]:
        """Yield rows whose columns say something else than their payload; reads all of it."""
        ...

    def ties(self) -> Iterator[TiedScores]:
        """Yield the scores behind each current closing as a tie."""
        ...

    def rows(self, keys: Sequence[PromptKey]) -> Iterator[PromptRows]:
        """Yield the rows of these prompts, by their ids."""
        ...


KNOWN_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
KNOWN_CAUSES = frozenset(cause.value for cause in UnpairedCause)
