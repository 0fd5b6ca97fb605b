"""The places at which a crash test can hold a process, in one closed list."""

from enum import StrEnum

__all__ = ["Failpoint", "NoFailpoints"]


class Failpoint(StrEnum):
    """Each stands between two effects whose order is the guarantee (ARCHITECTURE §4)."""

    GATEWAY_STORED = "gateway.stored"
    """A prompt is stored, but neither published nor answered."""

    GENERATION_ASSIGNED = "generation.assigned"
    """An assignment is stored, its slots have no trace."""

    JUDGING_RECEIVED = "judging.received"
    """A trace is stored and has no judgement."""

    CURATION_ENDED = "curation.ended"
    """All slots of a group have ended, it is not closed."""

    TRAINING_STEP = "training.step"
    """A cycle's step runs."""

    MONITORING_SEEN = "monitoring.seen"
    """An event is seen, its offset not committed."""

    RUNTIME_STORED = "runtime.stored"
    """A record's effects are stored, the events that tell of them are not published."""

    RUNTIME_PUBLISHED = "runtime.published"
    """A record's events are acknowledged, its offset is not committed."""

    RUNTIME_BURIED = "runtime.buried"
    """A dead letter is stored with the slot end that it causes, neither is published."""


class NoFailpoints:
    """Nothing is armed: everybody passes."""

    async def reach(self, name: Failpoint, subject: str) -> None:
        """Go on."""

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        """Go on."""
