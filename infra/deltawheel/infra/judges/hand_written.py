"""Texts that no generator wrote, in the form that judges read: trials, attacks, anchors."""

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.trace import FinishReason, Trace

__all__ = ["hand_written"]


def hand_written(name: str, prompt: Prompt, *, answer: str, reasoning: str = "") -> Trace:
    """Return a text as the trace that a generator could have written."""
    return Trace(
        trace_id=f"trial-{name}",
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        slot=0,
        generator="trial",
        generator_revision="trial",
        served_model="trial",
        sampling=Sampling(),
        seed=0,
        reasoning=reasoning,
        answer=answer,
        text_digest=digest_of(reasoning + answer),
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason=FinishReason.STOP,
        lineage_depth=0,
        accepted_at=prompt.accepted_at,
        generated_at=prompt.accepted_at,
    )
