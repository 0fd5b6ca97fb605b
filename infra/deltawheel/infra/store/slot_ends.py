"""Slot ends as records: the judgement or the failure that ended a slot."""

from typing import Any

from sqlalchemy import RowMapping, Select, select

from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.infra.store.tables import JUDGEMENTS, SLOT_ENDS

__all__ = ["select_slot_ends", "slot_end_of"]


def select_slot_ends() -> Select[Any]:
    """Select slot ends, each with the payload of what ended it."""
    is_its_judgement = (
        (JUDGEMENTS.c.trace_id == SLOT_ENDS.c.trace_id)
        & (JUDGEMENTS.c.judge_revision == SLOT_ENDS.c.judge_revision)
        & (JUDGEMENTS.c.rubric_digest == SLOT_ENDS.c.rubric_digest)
    )
    return select(
        SLOT_ENDS.c.prompt_id,
        SLOT_ENDS.c.round,
        SLOT_ENDS.c.slot,
        SLOT_ENDS.c.attempt,
        SLOT_ENDS.c.payload.label("failure"),
        JUDGEMENTS.c.payload.label("judgement"),
    ).select_from(SLOT_ENDS.outerjoin(JUDGEMENTS, is_its_judgement))


def slot_end_of(row: RowMapping) -> SlotFailed | Judgement:
    """Return the record that ended the slot."""
    if row["failure"] is not None:
        return SlotFailed.model_validate_json(row["failure"])
    return Judgement.model_validate_json(row["judgement"])
