"""Ports: what services and pipelines ask of the outside world. Adapters stand in `infra`.

Methods without `async` may block and are called from threads that may wait.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.judgement import Opinion, Score
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.promotion import Champion, RegisteredVersion
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.slices import SliceManifest
from deltawheel.contracts.trace import FinishReason, Trace

__all__ = [
    "Assessment",
    "ChatModel",
    "Completion",
    "Consumer",
    "Failpoints",
    "Judge",
    "PairChecks",
    "Producer",
    "Registry",
    "Telemetry",
    "TopicPartition",
    "UnloadingChatModel",
    "Verifier",
]


class TopicPartition(NamedTuple):
    """One partition of one topic, by the topic's name on the broker."""

    topic: str
    partition: int


class Consumer(Protocol):
    """One member of a consumer group. It belongs to the thread that polls it."""

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        """Return what has arrived, or nothing after `timeout_s`; keeps the membership alive.

        What cannot be read comes as a message with a `fault` and is not met again.

        Raises:
            RetryLaterError: the broker cannot be reached.
        """
        ...

    def has_joined(self) -> bool:
        """Whether the group has this member and has given it its share, which may be nothing.

        A group's only member has joined once it holds every partition.
        """
        ...

    def assigned(self) -> frozenset[TopicPartition]:
        """Return the partitions that this member holds at the moment."""
        ...

    def pause(self, partitions: frozenset[TopicPartition]) -> None:
        """Stop fetching from these partitions while polling goes on."""
        ...

    def resume(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch from these partitions again."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offset to read for each partition, and only for these."""
        ...

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return how many records of each assigned partition have not been polled yet."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Producer(Protocol):
    """Publishes records; safe to call from many threads."""

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Return when the broker has acknowledged every message.

        Raises:
            RetryLaterError: at least one of them was not acknowledged; publishing all of them
                again is safe, for consumers drop what they have seen.
            InvalidRecordError: one is larger than the broker takes, which no try will change.
            ValueError: one has neither key nor value, which no broker takes.
        """
        ...

    def close(self) -> None:
        """Flush and disconnect."""
        ...


class Telemetry(Protocol):
    """Metrics of the closed list in `contracts.metrics`; an unknown name is an error at once."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        ...


class Failpoints(Protocol):
    """Named places at which a test can hold a process; nothing happens where none is armed."""

    async def reach(self, name: Failpoint, subject: str) -> None:
        """Hold the calling task for ever if the point is armed and nobody was held there yet."""
        ...

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        """Hold the calling thread likewise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a generator answered."""

    reasoning: str
    answer: str
    served_model: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason


class ChatModel(Protocol):
    """Asks generators over OpenAI-compatible servers."""

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Ask once. An adapter that the server has forgotten is loaded again first.

        Raises:
            RetryLaterError: the server is down, busy or too slow, or the settings are wrong about
                it: what an operator puts right costs no prompt.
            InvalidRecordError: the server refuses the request and always will, or no longer
                serves this revision.
        """
        ...

    async def load(self, generator: Generator) -> None:
        """Make sure that the generator answers, loading its adapter where that is needed."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class UnloadingChatModel(ChatModel, Protocol):
    """A `ChatModel` whose servers can be told to forget an adapter, and asked what they serve."""

    async def compare(self, generator: Generator) -> None:
        """Compare the weights that its server names with the earlier; no token is written.

        Raises:
            RetryLaterError: the server is down or busy.
            ForeignModelError: it serves other weights than before under the same name.
        """
        ...

    async def unload(self, generator: Generator) -> None:
        """Have the server forget the generator's adapter; what is no adapter stays.

        Raises:
            RetryLaterError: the server is down or busy.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A judge's scores on every dimension of the rubric, and a verifier's finding if it has one.

    `opinions` are what the judges of a jury found each, where several were asked.
    """

    scores: Mapping[str, Score]
    is_correct: bool | None = None
    opinions: tuple[Opinion, ...] = ()


class Judge(Protocol):
    """Scores traces. An LLM judge and a programmatic one look the same from here."""

    @property
    def name(self) -> str:
        """What metrics and tables call it."""
        ...

    @property
    def revision(self) -> str:
        """Changes whenever the same trace could get another score."""
        ...

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score the trace on every dimension of the rubric.

        Raises:
            RetryLaterError: the judge is down, busy, or left a dimension out.
            InvalidRecordError: this trace cannot be judged and never will be.
        """
        ...


class Verifier(Protocol):
    """A program that tells right answers from wrong ones; `judge.verifier` names it."""

    def verify(self, prompt: Prompt, trace: Trace) -> bool | None:
        """Tell whether the trace's answer is right, or None where it cannot say so of this prompt.

        It is called in the judging service's event loop: it must be quick, whatever the text is.
        """
        ...


class PairChecks(Protocol):
    """Data-quality checks on a micro-batch of pairs."""

    def failures(self, pairs: Sequence[PreferencePair]) -> Mapping[str, tuple[str, ...]]:
        """Return, by pair id, the expectations that a pair fails; those that pass are absent.

        Raises:
            RuntimeError: an expectation crashed, which says nothing about the pairs.
        """
        ...


class Registry(Protocol):
    """The model registry; its `champion` alias is the truth about the champion.

    Its creates are searched for by the cycle's id first, so that each call can be repeated.
    """

    def champion(self, download_to: Path) -> Champion:
        """Return whom the alias names, its adapter downloaded below the folder; or the base."""
        ...

    def record_run(
        self,
        cycle_id: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        manifest: SliceManifest,
        decision: GateDecision,
        artifacts: Path,
    ) -> str:
        """Write the cycle's run once, with every file below `artifacts`; return the run's id."""
        ...

    def add_version(self, cycle_id: str, run_id: str, *, tags: Mapping[str, str]) -> str:
        """Make the version that serves the run's `model` folder, once; return its number."""
        ...

    def versions(self) -> list[RegisteredVersion]:
        """Return all versions of the wheel's model, oldest first."""
        ...

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        """Point the alias at the version, and `previous` at the one it replaces.

        Raises:
            CycleError: the alias names neither `version` nor `replaces`: somebody moved it.
        """
        ...
