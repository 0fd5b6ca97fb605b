"""The stream's tables: what the store remembers, and by which columns it finds it again.

`payload` holds a record's JSON and is what is given back; every other column is a key or is
queried. Each row carries its wheel, because several wheels may share one database. Rows are
written by Core inserts (ten times the ORM's rate), so the classes are the schema and no more.
"""

from sqlalchemy import Index
from sqlmodel import Field

from deltawheel.infra.store.columns import (
    LongText,
    Moment,
    OptionalBytes,
    OptionalLongText,
    OptionalMoment,
    Row,
    table_of,
)

__all__ = [
    "ASSIGNMENTS",
    "CLOSINGS",
    "DEAD_LETTERS",
    "JUDGEMENTS",
    "LETTER_MOVES",
    "PAIRS",
    "PAIR_DELTAS",
    "PROMPTS",
    "PROMPT_FAILURES",
    "QUARANTINE",
    "QUARANTINE_REASONS",
    "SLOT_ENDS",
    "STANDSTILLS",
    "TRACES",
    "TRANSITIONS",
    "WATCHES",
]


class PromptRow(Row, table=True):
    """An accepted prompt.

    `attempt` and `closed_at` are the only columns of the stream that are ever updated: marks of
    the newest transition and of that attempt's closing, whose rows are the truth. They keep the
    index of open prompts small, however many have ended.
    """

    __tablename__ = "prompts"
    __table_args__ = (Index(None, "wheel", "accepted_at"),)

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    domain: str
    accepted_at: Moment
    closed_at: OptionalMoment = None
    payload: LongText
    attempt: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


class TransitionRow(Row, table=True):
    """A further attempt at a prompt, opened by an operator."""

    __tablename__ = "transitions"

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    kind: str
    opened_at: Moment
    expires_at: Moment
    payload: LongText


class AssignmentRow(Row, table=True):
    """Who is asked."""

    __tablename__ = "assignments"
    __table_args__ = (Index(None, "wheel", "expires_at"),)

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    num_slots: int
    accepted_at: Moment
    expires_at: Moment
    payload: LongText


class TraceRow(Row, table=True):
    """What a generator wrote. One per slot follows from one assignment, which the id contains."""

    __tablename__ = "traces"
    __table_args__ = (
        Index(None, "prompt_id", "round", "slot"),
        Index(
            "ix_traces_spending",
            "wheel",
            "generated_at",
            "generator",
            "prompt_tokens",
            "completion_tokens",
        ),
    )

    trace_id: str = Field(primary_key=True)
    prompt_id: str
    round: int
    slot: int
    generator: str
    generator_revision: str
    text_digest: str
    prompt_tokens: int
    completion_tokens: int
    accepted_at: Moment
    generated_at: Moment
    payload: LongText


class JudgementRow(Row, table=True):
    """What a judge found."""

    __tablename__ = "judgements"
    __table_args__ = (Index(None, "prompt_id", "round"), Index(None, "wheel", "judged_at"))

    trace_id: str = Field(primary_key=True)
    judge_revision: str = Field(primary_key=True)
    rubric_digest: str = Field(primary_key=True)
    prompt_id: str
    round: int
    slot: int
    judged_at: Moment
    payload: LongText
    num_opinions: int = Field(default=0, sa_column_kwargs={"server_default": "0"})


class SlotEndRow(Row, table=True):
    """How a slot ended: by the judgement that the key columns name, or failed, as the payload."""

    __tablename__ = "slot_ends"
    __table_args__ = (Index(None, "wheel", "kind"),)

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    slot: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    kind: str
    trace_id: str | None = None
    judge_revision: str | None = None
    rubric_digest: str | None = None
    ended_at: Moment
    payload: OptionalLongText = None


class PromptFailureRow(Row, table=True):
    """A prompt that nobody could be asked."""

    __tablename__ = "prompt_failures"

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    failed_at: Moment
    payload: LongText


class ClosingRow(Row, table=True):
    """The end of one attempt at a prompt; `cause` tells unpaired ones apart."""

    __tablename__ = "closings"
    __table_args__ = (Index(None, "wheel", "outcome", "cause", "prompt_id", "round", "attempt"),)

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    outcome: str
    cause: str | None = None
    closed_at: Moment
    payload: LongText


class PairRow(Row, table=True):
    """A stored pair."""

    __tablename__ = "pairs"
    __table_args__ = (
        Index(None, "prompt_id", "round"),
        Index(None, "wheel", "pair_id"),
        Index(None, "wheel", "paired_at"),
        Index("ix_pairs_yield", "wheel", "order_delta", "generator_delta"),
    )

    pair_id: str = Field(primary_key=True)
    prompt_id: str
    round: int
    domain: str
    rubric_digest: str
    chosen_generator: str
    rejected_generator: str
    order_delta: float
    generator_delta: float
    accepted_at: Moment
    paired_at: Moment
    payload: LongText


class PairDeltaRow(Row, table=True):
    """One dimension's sample delta; `order_by` is a dimension too, of unknown variance.

    What repeats the pair's is there so that ranking reads this table alone.
    """

    __tablename__ = "pair_deltas"

    pair_id: str = Field(primary_key=True, foreign_key="pairs.pair_id")
    dimension: str = Field(primary_key=True)
    rubric_digest: str
    judge_revision: str
    paired_at: Moment
    delta: float
    variance: float | None = None


class QuarantineRow(Row, table=True):
    """A pair that failed a check."""

    __tablename__ = "quarantine"
    __table_args__ = (Index(None, "prompt_id", "round"),)

    pair_id: str = Field(primary_key=True)
    prompt_id: str
    round: int
    quarantined_at: Moment
    payload: LongText


class QuarantineReasonRow(Row, table=True):
    """An expectation that a pair failed."""

    __tablename__ = "quarantine_reasons"
    __table_args__ = (Index(None, "wheel", "expectation"),)

    pair_id: str = Field(primary_key=True, foreign_key="quarantine.pair_id")
    expectation: str = Field(primary_key=True)


class StandstillRow(Row, table=True):
    """A span in which the wheel was stopped or its generation paused: no expiry ran in it."""

    __tablename__ = "standstills"

    wheel: str = Field(primary_key=True)
    began_at: Moment = Field(primary_key=True)
    ended_at: Moment


class WatchRow(Row, table=True):
    """When somebody last noted that the wheel turns; one row a wheel."""

    __tablename__ = "watches"

    wheel: str = Field(primary_key=True)
    seen_at: Moment


class DeadLetterRow(Row, table=True):
    """A record that could not be processed. Its bytes need not be text, so they are columns."""

    __tablename__ = "dead_letters"
    __table_args__ = (Index(None, "wheel", "died_at"), Index(None, "prompt_id", "round"))

    letter_id: str = Field(primary_key=True)
    topic: str
    service: str
    died_at: Moment
    key: OptionalBytes = None
    value: OptionalBytes = None
    headers: LongText
    payload: LongText
    prompt_id: str | None = None
    round: int | None = None
    attempt: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


class LetterMoveRow(Row, table=True):
    """What an operator did about a dead letter, or about one attempt at a dead-lettered prompt."""

    __tablename__ = "letter_moves"

    letter_id: str = Field(primary_key=True)
    kind: str
    moved_at: Moment
    payload: LongText


ASSIGNMENTS = table_of(AssignmentRow)
CLOSINGS = table_of(ClosingRow)
DEAD_LETTERS = table_of(DeadLetterRow)
JUDGEMENTS = table_of(JudgementRow)
LETTER_MOVES = table_of(LetterMoveRow)
PAIRS = table_of(PairRow)
PAIR_DELTAS = table_of(PairDeltaRow)
PROMPTS = table_of(PromptRow)
PROMPT_FAILURES = table_of(PromptFailureRow)
QUARANTINE = table_of(QuarantineRow)
QUARANTINE_REASONS = table_of(QuarantineReasonRow)
SLOT_ENDS = table_of(SlotEndRow)
STANDSTILLS = table_of(StandstillRow)
TRACES = table_of(TraceRow)
TRANSITIONS = table_of(TransitionRow)
WATCHES = table_of(WatchRow)

_IS_OPEN = PROMPTS.c.closed_at.is_(None)
Index(
    "ix_prompts_open",
    PROMPTS.c.wheel,
    PROMPTS.c.accepted_at,
    sqlite_where=_IS_OPEN,
    postgresql_where=_IS_OPEN,
)
_IS_BY_JURY = JUDGEMENTS.c.num_opinions > 0
Index(
    "ix_judgements_by_jury",
    JUDGEMENTS.c.wheel,
    JUDGEMENTS.c.judged_at,
    sqlite_where=_IS_BY_JURY,
    postgresql_where=_IS_BY_JURY,
)
Index(
    "ix_pair_deltas_ranked",
    PAIR_DELTAS.c.wheel,
    PAIR_DELTAS.c.rubric_digest,
    PAIR_DELTAS.c.judge_revision,
    PAIR_DELTAS.c.dimension,
    PAIR_DELTAS.c.delta.desc(),
    PAIR_DELTAS.c.pair_id,
    PAIR_DELTAS.c.paired_at,
)
