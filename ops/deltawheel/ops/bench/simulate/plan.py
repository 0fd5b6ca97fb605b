"""What one seed means: how much work there is, on how many partitions, and what goes wrong."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from deltawheel.contracts.clock import Random

__all__ = ["CrashPoint", "Fault", "Plan", "Side"]


class Fault(StrEnum):
    """Everything that can go wrong, in one closed list.

    Each seed has some of these and not others: with all of them at once, some would hide others.
    """

    CRASH = "crash"
    """A process dies before or after an effect: a store write, a publish, a commit."""
    STOP = "stop"
    """A process is stopped and started again, as an upgrade does."""
    BLACKOUT = "blackout"
    """Every process dies at the same instant."""
    ZOMBIE = "zombie"
    """A process that was declared dead and replaced goes on working for a while."""
    FREEZE = "freeze"
    """A process stands still, past its session's timeout, and then goes on."""
    REBALANCE = "rebalance"
    """A second member joins a group in the middle of its work, and leaves."""
    STORE_BUSY = "store-busy"
    """A call to the store is refused, or its answer is lost after the effect."""
    STORE_OUTAGE = "store-outage"
    """The store does not answer for a while."""
    BROKER_FLAKY = "broker-flaky"
    """A poll, publish or commit fails, or its acknowledgement is lost, or half of it is done."""
    BROKER_OUTAGE = "broker-outage"
    """The broker does not answer for a while."""
    BROKER_LOSS = "broker-loss"
    """A memory-only broker starts afresh with nothing, and is refilled from the store."""
    UNFENCED = "unfenced"
    """The broker takes the commits of members that the group has moved on from."""
    REDELIVERY = "redelivery"
    """An event that was published long ago is delivered once more."""
    GARBAGE = "garbage"
    """Somebody publishes what is no event of ours."""
    MODELS_FLAKY = "models-flaky"
    """A model answers 503, times out, answers garbage or takes very long."""
    MODELS_OUTAGE = "models-outage"
    """No model answers for a while."""
    JUDGE_FLAKY = "judge-flaky"
    """The judge is busy, slow, or leaves a dimension out."""
    REPLAY = "replay"
    """An operator replays the dead letters, or opens another attempt at whatever has failed."""
    CLOCK_JUMP = "clock-jump"
    """The time of day of one process jumps, forward or back."""


_CRASH_SHARE: Final = 0.012
_FLAKY_SHARES: Final = (0.01, 0.05, 0.2)


class Side(StrEnum):
    """Where a crash stands: the effect has not happened, or it has and nobody knows."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """One exact place to die: the n-th effect of the whole run, counted from 0."""

    effect: int
    side: Side

    @classmethod
    def parse(cls, text: str) -> "CrashPoint":
        """Read what `str` writes, such as `17:before`.

        Raises:
            ValueError: it is no number and side.
        """
        effect, _, side = text.partition(":")
        return cls(effect=int(effect), side=Side(side))

    def __str__(self) -> str:
        return f"{self.effect}:{self.side.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played. Durations are virtual seconds."""

    num_prompts: int
    arrive_within_s: float
    trouble_within_s: float
    partitions: int
    faults: frozenset[Fault] = frozenset()
    crash_share: float = 0.0
    flaky_share: float = 0.0
    num_troubles: int = 0
    republish_after_s: float = 10.0
    is_healing: bool = True
    """Whether curation publishes owed events again. Off, only redelivery is left to heal."""
    crash_at: CrashPoint | None = None
    longest_nap_s: float = 12.0
    """Between two polls of a member for which nothing comes; what comes wakes it."""
    patience_s: float = 4 * 3_600.0
    """How long after the last fault everything must have come to its end."""

    @classmethod
    def calm(cls, *, crash_at: CrashPoint | None = None) -> "Plan":
        """Return a small plan in which nothing goes wrong, but for one death at an exact place."""
        return cls(
            num_prompts=2,
            arrive_within_s=0.5,
            trouble_within_s=1.0,
            partitions=1,
            republish_after_s=20.0,
            crash_at=crash_at,
        )

    @classmethod
    def of(cls, random: Random) -> "Plan":
        """Draw a plan."""
        share = random.choice((0.1, 0.3, 0.5))
        faults = frozenset(fault for fault in Fault if random.random() < share)
        return cls(
            num_prompts=random.randrange(2, 7),
            arrive_within_s=random.choice((0.1, 5.0, 20.0)),
            trouble_within_s=random.choice((5.0, 15.0, 40.0)),
            partitions=random.randrange(1, 4),
            faults=faults,
            crash_share=_CRASH_SHARE * random.choice((1, 3)) if Fault.CRASH in faults else 0.0,
            flaky_share=random.choice(_FLAKY_SHARES),
            num_troubles=random.randrange(1, 6),
            republish_after_s=random.choice((8.0, 20.0)),
        )
