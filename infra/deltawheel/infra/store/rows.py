"""Records as rows: keys and queried columns beside the payload."""

import base64
import json

from sqlalchemy import RowMapping

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.letters import LetterMove
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.trace import Trace
from deltawheel.contracts.transition import Transition
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import Row

__all__ = [
    "EXPIRED",
    "FAILED",
    "JUDGED",
    "assignment_row",
    "closing_row",
    "dead_letter_of",
    "dead_letter_row",
    "delta_rows",
    "failed_end_row",
    "judged_end_row",
    "judgement_row",
    "letter_move_row",
    "pair_row",
    "prompt_columns",
    "prompt_failure_row",
    "prompt_row",
    "quarantine_row",
    "reason_rows",
    "trace_row",
    "transition_row",
    "unsent_letter_row",
]

JUDGED = "judged"
FAILED = "failed"
EXPIRED = "expired"


def prompt_row(prompt: Prompt, wheel: str) -> Row:
    """Return the row of a prompt that is open."""
    return {
        "wheel": wheel,
        "prompt_id": prompt.prompt_id,
        "round": prompt.round,
        "domain": prompt.domain,
        "accepted_at": prompt.accepted_at,
        "payload": prompt.wire,
    }


def assignment_row(assignment: Assignment, wheel: str) -> Row:
    """Return the row of an assignment."""
    return {
        "wheel": wheel,
        "prompt_id": assignment.prompt_id,
        "round": assignment.round,
        "num_slots": len(assignment.slots),
        "accepted_at": assignment.accepted_at,
        "expires_at": assignment.expires_at,
        "payload": assignment.model_dump_json(),
    }


def trace_row(trace: Trace, wheel: str) -> Row:
    """Return the row of a trace."""
    return {
        "wheel": wheel,
        "trace_id": trace.trace_id,
        "prompt_id": trace.prompt_id,
        "round": trace.round,
        "slot": trace.slot,
        "generator": trace.generator,
        "generator_revision": trace.generator_revision,
        "text_digest": trace.text_digest,
        "prompt_tokens": trace.prompt_tokens,
        "completion_tokens": trace.completion_tokens,
        "accepted_at": trace.accepted_at,
        "generated_at": trace.generated_at,
        "payload": trace.wire,
    }


def judgement_row(judgement: Judgement, wheel: str) -> Row:
    """Return the row of a judgement."""
    return {
        "wheel": wheel,
        "trace_id": judgement.trace_id,
        "judge_revision": judgement.judge_revision,
        "rubric_digest": judgement.rubric_digest,
        "prompt_id": judgement.prompt_id,
        "round": judgement.round,
        "slot": judgement.slot,
        "judged_at": judgement.judged_at,
        "payload": judgement.wire,
        "num_opinions": len(judgement.opinions),
    }


def judged_end_row(judgement: Judgement, wheel: str, *, attempt: int) -> Row:
    """Return the slot end that a judgement is; it names the judgement and repeats nothing."""
    return {
        "wheel": wheel,
        "prompt_id": judgement.prompt_id,
        "round": judgement.round,
        "slot": judgement.slot,
        "attempt": attempt,
        "kind": JUDGED,
        "trace_id": judgement.trace_id,
        "judge_revision": judgement.judge_revision,
        "rubric_digest": judgement.rubric_digest,
        "ended_at": judgement.judged_at,
        "payload": None,
    }


def failed_end_row(failure: SlotFailed, wheel: str) -> Row:
    """Return the slot end that a failure is."""
    return {
        "wheel": wheel,
        "prompt_id": failure.prompt_id,
        "round": failure.round,
        "slot": failure.slot,
        "attempt": failure.attempt,
        "kind": EXPIRED if failure.is_expired else FAILED,
        "trace_id": None,
        "judge_revision": None,
        "rubric_digest": None,
        "ended_at": failure.failed_at,
        "payload": failure.wire,
    }


def prompt_failure_row(failure: PromptFailed, wheel: str) -> Row:
    """Return the row of a prompt that nobody could be asked."""
    return {
        "wheel": wheel,
        "prompt_id": failure.prompt_id,
        "round": failure.round,
        "attempt": failure.attempt,
        "failed_at": failure.failed_at,
        "payload": failure.wire,
    }


def closing_row(closing: Closing, wheel: str) -> Row:
    """Return the row of a closing."""
    return {
        "wheel": wheel,
        "prompt_id": closing.prompt_id,
        "round": closing.round,
        "attempt": closing.attempt,
        "outcome": closing.outcome.value,
        "cause": closing.cause.value if closing.cause else None,
        "closed_at": closing.closed_at,
        "payload": closing.model_dump_json(),
    }


def pair_row(pair: PreferencePair, wheel: str) -> Row:
    """Return the row of a pair."""
    return {
        "wheel": wheel,
        "pair_id": pair.pair_id,
        "prompt_id": pair.prompt.prompt_id,
        "round": pair.prompt.round,
        "domain": pair.prompt.domain,
        "rubric_digest": pair.rubric_digest,
        "chosen_generator": pair.chosen.trace.generator,
        "rejected_generator": pair.rejected.trace.generator,
        "order_delta": pair.order_delta,
        "generator_delta": pair.generator_delta.estimate,
        "accepted_at": pair.accepted_at,
        "paired_at": pair.paired_at,
        "payload": pair.wire,
    }


def delta_rows(pair: PreferencePair, wheel: str) -> list[Row]:
    """Return a row for each dimension, and one for `order_by`, whose variance nobody estimated."""
    deltas: dict[str, tuple[float, float | None]] = {
        name: (sample.delta, sample.variance) for name, sample in pair.deltas.items()
    }
    deltas[ORDER_BY] = (pair.order_delta, None)
    return [
        {
            "wheel": wheel,
            "pair_id": pair.pair_id,
            "dimension": dimension,
            "rubric_digest": pair.rubric_digest,
            "judge_revision": pair.chosen.judgement.judge_revision,
            "paired_at": pair.paired_at,
            "delta": delta,
            "variance": variance,
        }
        for dimension, (delta, variance) in deltas.items()
    ]


def quarantine_row(quarantined: QuarantinedPair, wheel: str) -> Row:
    """Return the row of a quarantined pair."""
    return {
        "wheel": wheel,
        "pair_id": quarantined.pair.pair_id,
        "prompt_id": quarantined.pair.prompt.prompt_id,
        "round": quarantined.pair.prompt.round,
        "quarantined_at": quarantined.quarantined_at,
        "payload": quarantined.wire,
    }


def reason_rows(quarantined: QuarantinedPair, wheel: str) -> list[Row]:
    """Return a row for each expectation that the pair failed."""
    return [
        {"wheel": wheel, "pair_id": quarantined.pair.pair_id, "expectation": expectation}
        for expectation in dict.fromkeys(quarantined.expectations)
    ]


def dead_letter_row(letter: DeadLetter, wheel: str) -> Row:
    """Return the row of a dead letter; what was bytes stays bytes, for it may be no text."""
    headers = [[name, base64.b64encode(raw).decode()] for name, raw in letter.headers]
    return {
        "wheel": wheel,
        "letter_id": letter.letter_id,
        "topic": letter.topic,
        "service": letter.service,
        "died_at": letter.died_at,
        "key": letter.key,
        "value": letter.value,
        "headers": json.dumps(headers),
        "payload": letter.model_dump_json(exclude={"key", "value", "headers"}),
        **prompt_columns(letter.prompt_key),
        "attempt": letter.attempt,
    }


def prompt_columns(key: PromptKey | None) -> Row:
    """Return the columns that name the prompt of a message, which may come from anybody.

    Garbage that names one by no possible id is kept like any other message, but names nothing.
    """
    named = key if key and is_key(key.prompt_id) else None
    return {
        "prompt_id": named.prompt_id if named else None,
        "round": named.round if named else None,
    }


def letter_move_row(move: LetterMove, wheel: str) -> Row:
    """Return the row of what an operator did about a dead letter."""
    return {
        "wheel": wheel,
        "letter_id": move.letter_id,
        "kind": move.kind.value,
        "moved_at": move.moved_at,
        "payload": move.model_dump_json(),
    }


def unsent_letter_row(letter: DeadLetter, wheel: str) -> Row:
    """Return the row that says: this letter's message may not be in its topic yet."""
    return {
        "wheel": wheel,
        "letter_id": letter.letter_id,
        "service": letter.service,
        "died_at": letter.died_at,
    }


def dead_letter_of(row: RowMapping) -> DeadLetter:
    """Put a dead letter together again."""
    headers = [(name, base64.b64decode(raw)) for name, raw in json.loads(row["headers"])]
    text = {**json.loads(row["payload"]), "key": row["key"], "value": row["value"]}
    return DeadLetter.model_validate({**text, "headers": headers})


def transition_row(transition: Transition, wheel: str) -> Row:
    """Return the row of an attempt that an operator opened."""
    return {
        "wheel": wheel,
        "prompt_id": transition.prompt_id,
        "round": transition.round,
        "attempt": transition.attempt,
        "kind": transition.kind.value,
        "opened_at": transition.opened_at,
        "expires_at": transition.expires_at,
        "payload": transition.model_dump_json(),
    }
