"""Topics and the events on them: one closed list, from which codec, schemas and docs are made."""

from dataclasses import dataclass
from enum import StrEnum

from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.trace import Trace

__all__ = ["EVENT_TYPES", "EventType", "Topic", "event_type_of"]


class Topic(StrEnum):
    """Every topic of a wheel; on the broker each is prefixed with the wheel's name and a dot."""

    PROMPTS = "prompts"
    TRACES = "traces"
    JUDGEMENTS = "judgements"
    PAIRS = "pairs"
    PROMOTIONS = "promotions"
    DEAD_LETTERS = "dead-letters"

    def of(self, wheel: str) -> str:
        """Return the name on the broker."""
        return f"{wheel}.{self.value}"


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of message: its CloudEvents `type`, where it travels, what its payload is."""

    name: str
    topic: Topic
    record: type[Record]
    meaning: str


EVENT_TYPES: tuple[EventType, ...] = (
    EventType(
        "io.deltawheel.prompt.accepted.v1", Topic.PROMPTS, Prompt, "The store holds a new prompt."
    ),
    EventType("io.deltawheel.trace.generated.v1", Topic.TRACES, Trace, "A slot has its trace."),
    EventType(
        "io.deltawheel.trace.judged.v1", Topic.JUDGEMENTS, Judgement, "A trace has its scores."
    ),
    EventType(
        "io.deltawheel.slot.failed.v1",
        Topic.JUDGEMENTS,
        SlotFailed,
        "A slot ended without a judged trace.",
    ),
    EventType(
        "io.deltawheel.prompt.failed.v1",
        Topic.JUDGEMENTS,
        PromptFailed,
        "No generator could be assigned.",
    ),
    EventType(
        "io.deltawheel.pair.stored.v1",
        Topic.PAIRS,
        PreferencePair,
        "A checked pair is in the store.",
    ),
    EventType(
        "io.deltawheel.pair.quarantined.v1",
        Topic.PAIRS,
        QuarantinedPair,
        "A pair failed a data-quality check.",
    ),
    EventType(
        "io.deltawheel.model.promoted.v1",
        Topic.PROMOTIONS,
        Promotion,
        "The champion alias moved to a new version.",
    ),
)


def event_type_of(record: Record) -> EventType:
    """Return the event type that carries this record.

    Raises:
        LookupError: no topic carries records of this class.
    """
    for event_type in EVENT_TYPES:
        if type(record) is event_type.record:
            return event_type
    raise LookupError(f"no topic carries {type(record).__name__}")
