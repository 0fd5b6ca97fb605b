"""The wheel's pace through a model server, beside that of vLLM's own client on the same server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.events import encode
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.record import MAX_COUNT
from deltawheel.contracts.trace import Trace
from deltawheel.infra import wiring
from deltawheel.ops.bench.serving.client import Asked, Pace, run_client
from deltawheel.ops.bench.serving.world import SLOTS, World
from deltawheel.ops.bench.stream.running import Stream, running_stream

__all__ = ["Saturation", "measure_saturation"]

_LOOK_EVERY_S: Final = 0.5
"""Paces are read off the traces, so that looking need not be exact, and takes little."""
_STALLED_S: Final = 120.0
_TEMPERATURE: Final = 1.0
"""The wheel's default, and so the client's."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Saturation:
    """Both sides' paces, run by run; each run's client asks what that run of the wheel asked."""

    wheel: list[Pace] = field(default_factory=list)
    client: list[Pace] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """The wheel's tokens per second over the client's, of each run."""
        return [
            ours.tokens_per_s / theirs.tokens_per_s
            for ours, theirs in zip(self.wheel, self.client, strict=True)
        ]

    @property
    def ratio(self) -> float | None:
        """Their median."""
        return median(self.ratios) if self.wheel else None


def measure_saturation(world: World, *, repeats: int, say: Say) -> Saturation:
    """Run wheel and client by turns on one server.

    Raises:
        DeltawheelError: a process cannot run, or a request failed: no figure then.
    """
    found = Saturation()
    with running_stream(world, say=say) as stream:
        _run_wheel(stream, world, count=world.served.concurrency)  # warm: imports, caches, engine
        for number in range(1, repeats + 1):
            ours, asked = _run_wheel(stream, world, count=world.served.num_prompts)
            theirs = _run_client(stream, world, asked)
            found.wheel.append(ours)
            found.client.append(theirs)
            say(
                f"{world.served.name}, run {number} of {repeats}: wheel {ours.tokens_per_s:.0f}, "
                f"vLLM's client {theirs.tokens_per_s:.0f} tokens/s"
            )
    return found


def _run_wheel(stream: Stream, world: World, *, count: int) -> tuple[Pace, list[Asked]]:
    """Let the wheel write the traces of new prompts; return its pace, and what that asked."""
    begun_at = stream.clock.now()
    prompts = _submit(stream, world, count)
    traces = _wait_for_traces(stream, prompts)
    seconds = (max(trace.generated_at for trace in traces) - begun_at).total_seconds()
    texts = {prompt.prompt_id: prompt.messages[-1].content for prompt in prompts}
    asked = [Asked(texts[trace.prompt_id], trace.completion_tokens) for trace in traces]
    return Pace(output_tokens=sum(it.output_tokens for it in asked), seconds=seconds), asked


def _submit(stream: Stream, world: World, count: int) -> list[Prompt]:
    """Store prompts and publish their events, as the gateway does; it may be left out."""
    wheel, served = stream.wheel, world.served
    wanted = range(stream.num_fed, stream.num_fed + count)
    stream.fed(count)
    bodies = ({"text": served.text(n), "reference_answer": "0"} for n in wanted)
    prompts = [
        PromptSubmission.parse(body, max_chars=MAX_COUNT).accept(
            wheel=wheel.settings.wheel, accepted_at=stream.clock.now()
        )
        for body in bodies
    ]
    stored = wheel.store.add_prompts(prompts)
    producer = wiring.open_producer(wheel.settings)
    try:
        events = [encode(it, wheel=wheel.settings.wheel, service="gateway") for it in stored]
        producer.publish(events)
    finally:
        producer.close()
    return stored


def _wait_for_traces(stream: Stream, prompts: Sequence[Prompt]) -> list[Trace]:
    """Wait until the store holds every trace of these.

    Raises:
        DeltawheelError: a slot failed, or no trace came for two minutes.
    """
    store, wanted = stream.wheel.store, SLOTS * len(prompts)
    found, since_s = 0, stream.clock.monotonic()
    while True:
        stream.require_running()
        groups = store.groups([prompt.key for prompt in prompts]).values()
        traces = [trace for group in groups for trace in group.traces.values()]
        if len(traces) == wanted:
            return traces
        if len(traces) != found:
            found, since_s = len(traces), stream.clock.monotonic()
        unwritten = [
            failure.reason
            for group in groups
            for failure in group.slot_failures
            if failure.slot not in {trace.slot for trace in group.traces.values()}
        ]
        if unwritten or stream.clock.monotonic() - since_s > _STALLED_S:
            reason = unwritten[0] if unwritten else "nothing comes any more"
            raise DeltawheelError(f"{len(traces)} of {wanted} traces are stored: {reason}")
        stream.clock.wait(_LOOK_EVERY_S)


def _run_client(stream: Stream, world: World, asked: Sequence[Asked]) -> Pace:
    [server] = stream.wheel.settings.servers
    return run_client(
        asked,
        url=server.url,
        model=server.served_name,
        tokenizer=world.served.folder,
        concurrency=world.served.concurrency,
        temperature=_TEMPERATURE,
        core=world.cores[1] if world.cores else None,
    )
