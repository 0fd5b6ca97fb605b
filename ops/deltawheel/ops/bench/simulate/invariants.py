"""What must be true once nothing goes wrong any more and everything has come to its end."""

from collections import Counter
from collections.abc import Iterator

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.audit import account
from deltawheel.contracts.events import event_id
from deltawheel.contracts.ids import seed_of
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import RotationSettings
from deltawheel.contracts.store import Group
from deltawheel.contracts.topics import Topic
from deltawheel.contracts.trace import Trace
from deltawheel.ops.bench.simulate.clients import Client
from deltawheel.ops.bench.simulate.nature import Expected
from deltawheel.ops.bench.simulate.plan import Fault
from deltawheel.ops.bench.simulate.services import TOPICS
from deltawheel.ops.bench.simulate.trouble import Trouble
from deltawheel.ops.bench.simulate.wheel import SimulatedWheel
from deltawheel.services.generation.rotation import Table, deal

__all__ = ["violations"]

_ALL = 100_000
_SLACK_S = 10.0
"""From reading a group to asking for what it lacks, no handler takes as long as this."""


def violations(wheel: SimulatedWheel, clients: list[Client], trouble: Trouble) -> Iterator[str]:
    """Yield what is wrong, in sentences."""
    yield from wheel.failures
    keys = [client.accepted for client in clients if client.accepted is not None]
    groups = {key: group for key in keys if (group := wheel.store.group(key)) is not None}
    yield from _audit(wheel, keys)
    yield from _doubles(wheel)
    for key in keys:
        if key in groups:
            yield from _outcome(wheel, groups[key])
            yield from _texts(wheel, groups[key])
        else:
            yield f"prompt {_short(key)} was answered with 202 and is not in the store"
    yield from _pairs(wheel, groups)
    yield from _events(wheel)
    yield from _dead_letters(wheel, groups, trouble)


def _short(key: PromptKey) -> str:
    return key.prompt_id[-8:]


def _audit(wheel: SimulatedWheel, keys: list[PromptKey]) -> Iterator[str]:
    with wheel.store.snapshot() as snapshot:
        audit = account(snapshot, rubric=wheel.settings.make_rubric(), is_deep=True)
    if audit.prompts != len(set(keys)):
        yield f"{len(set(keys))} prompts were accepted, the store has {audit.prompts}"
    if audit.in_flight:
        yield f"{audit.in_flight} prompts are lost: open for ever after everything has settled"
    for finding in audit.findings:
        yield f"audit: {finding.kind}: {(finding.prompt_id or '')[-8:]}: {finding.fact}"


def _doubles(wheel: SimulatedWheel) -> Iterator[str]:
    for table, number in wheel.store.count_doubles().items():
        yield f"{number} keys have more than one row in {table}"


def _outcome(wheel: SimulatedWheel, group: Group) -> Iterator[str]:
    """Compare with what a wheel would have made of it in which nothing goes wrong."""
    key, assignment, closing = group.prompt.key, group.assignment, group.closing
    if closing is None:
        return  # the audit has named it
    if assignment is None:
        yield f"prompt {_short(key)} ended without an assignment, though the pool was never empty"
        return
    pool = Pool.from_log(wheel.store.pool_log())
    rotation = RotationSettings()
    dealt = deal(key, Table.of(pool, rotation, domain=group.prompt.domain), rotation)
    if not pool.promoted and tuple(slot.generator for slot in assignment.slots) != dealt:
        yield f"prompt {_short(key)} was assigned otherwise than the rotation deals it"
    expected = _expected(wheel, group, assignment)
    if closing.outcome is not expected.outcome:
        yield (
            f"prompt {_short(key)} ended {closing.outcome.value}, but without faults it ends "
            f"{expected.outcome.value} ({closing.reason})"
        )


def _expected(wheel: SimulatedWheel, group: Group, assignment: Assignment) -> Expected:
    """Derive the end from nature alone; from what a judge found, where it has drifted since."""
    expected = wheel.nature.expect(assignment)
    if not wheel.weather.judge_shift or expected.outcome is Outcome.DEAD_LETTERED:
        return expected
    levels = {it.trace_id: next(iter(it.scores.values())).mean for it in group.judgements}
    return wheel.nature.expect_of_levels(levels, assignment.rubric_digest)


def _texts(wheel: SimulatedWheel, group: Group) -> Iterator[str]:
    for trace in group.traces.values():
        judged = wheel.calls.judged_texts.get(trace.trace_id, set())
        if judged - {trace.text_digest}:
            yield f"trace {trace.trace_id[-8:]} was judged by another text than is stored"
        yield from _calls(wheel, trace)


def _calls(wheel: SimulatedWheel, trace: Trace) -> Iterator[str]:
    """A model is not asked again for what is stored and was published a while ago."""
    if wheel.plan.faults & {Fault.FREEZE, Fault.ZOMBIE}:
        return  # who stood still may ask for what has come meanwhile
    first_at_s = wheel.published.first_at_s.get(event_id(trace))
    for at_s in wheel.calls.asked_at_s.get(seed_of(trace.trace_id), []):
        if first_at_s is not None and at_s > first_at_s + _SLACK_S:
            yield (
                f"a model was asked for trace {trace.trace_id[-8:]} at {at_s:.3f} s, but it was "
                f"stored and published by {first_at_s:.3f} s"
            )


def _pairs(wheel: SimulatedWheel, groups: dict[PromptKey, Group]) -> Iterator[str]:
    pairs = wheel.store.pairs(after=None, limit=_ALL)
    sides = Counter(
        frozenset((pair.chosen.trace.trace_id, pair.rejected.trace.trace_id)) for pair in pairs
    )
    for traces, number in sides.items():
        if number > 1:
            yield f"{number} pairs of the same two traces: {sorted(it[-8:] for it in traces)}"
    for pair in pairs:
        yield from _pair(wheel, groups, pair)


def _pair(
    wheel: SimulatedWheel, groups: dict[PromptKey, Group], pair: PreferencePair
) -> Iterator[str]:
    name = pair.pair_id[-8:]
    group = groups.get(pair.key)
    if group is None:
        yield f"pair {name} belongs to a prompt that nobody handed in"
        return
    for side in (pair.chosen, pair.rejected):
        if group.traces.get(side.trace.trace_id) != side.trace:
            yield f"pair {name} holds another text than the trace that is stored"
        if side.judgement not in group.judgements:
            yield f"pair {name} holds another judgement than the one that is stored"
    if group.assignment is not None:
        expected = _expected(wheel, group, group.assignment)
        if (expected.pair_id, expected.chosen) != (pair.pair_id, pair.chosen.trace.trace_id):
            yield f"pair {name} is not the one that a wheel without faults forms"
    if not wheel.has_lost_broker and event_id(pair) not in wheel.published.payloads:
        yield f"pair {name} is stored, but no event on `pairs` ever said so"


def _events(wheel: SimulatedWheel) -> Iterator[str]:
    """What is published is what the store holds: it never reads differently the second time."""
    for identity, payloads in wheel.published.payloads.items():
        if len(payloads) > 1:
            yield f"event {identity[-8:]} was published with {len(payloads)} different payloads"


def _dead_letters(
    wheel: SimulatedWheel, groups: dict[PromptKey, Group], trouble: Trouble
) -> Iterator[str]:
    garbage = {message.value for message in trouble.garbage}
    letters = wheel.store.dead_letters(_ALL)
    for letter in letters:
        if letter.value not in garbage and not _is_unjudgeable(wheel, letter.topic, letter.value):
            yield f"{letter.service} gave up a valid record of {letter.topic}: {letter.reason}"
        if (letter.service, letter.value or b"") not in wheel.published.letters:
            yield f"a dead letter of {letter.service} was never published: {letter.value!r}"
    if unsent := wheel.unsent_letters():
        yield f"{len(unsent)} dead letters were never noted as sent"
    if not wheel.has_lost_broker:
        yield from _garbage(wheel, trouble, {(letter.service, letter.value) for letter in letters})


def _garbage(
    wheel: SimulatedWheel, trouble: Trouble, lying: set[tuple[str, bytes | None]]
) -> Iterator[str]:
    """Every service that reads the topic has to give it up: one's letter hides no other's."""
    for message in trouble.garbage:
        for service, topics in TOPICS.items():
            is_read = message.topic in {topic.of(wheel.settings.wheel) for topic in topics}
            if is_read and (service, message.value) not in lying:
                yield (
                    f"garbage on {message.topic} has become no dead letter of {service}: "
                    f"{message.value!r}"
                )


def _is_unjudgeable(wheel: SimulatedWheel, topic: str, value: bytes | None) -> bool:
    if topic != Topic.TRACES.of(wheel.settings.wheel) or value is None:
        return False
    trace = Trace.model_validate_json(value)
    return not wheel.nature.is_judgeable(seed_of(trace.trace_id))
