"""Events against rows: each must name a row and say what it says, or be a known dead letter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deltawheel.contracts.events import InboundMessage, encode, event_id
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.record import Record
from deltawheel.contracts.topic_audit import (
    DeepAudit,
    GroupOffset,
    StoredPair,
    batches,
    compare_events,
    name_unsent,
)
from tests.records import (
    WHEEL,
    a_judgement,
    a_pair,
    a_prompt,
    a_slot_failure,
    a_trace,
    seconds,
)


@dataclass
class Rows:
    """A store that holds these, and these payloads as dead letters."""

    records: Sequence[Record] = ()
    dead: frozenset[bytes] = field(default=frozenset())

    def held_events(self, records: Sequence[Record]) -> Mapping[str, Record]:
        return {event_id(record): record for record in self.records}

    def dead_values(self, values: Sequence[bytes]) -> frozenset[bytes]:
        return self.dead & set(values)

    def stored_pairs(self, *, since: datetime, before: datetime) -> Any:
        raise NotImplementedError


def a_message(record: Record, **changes: Any) -> InboundMessage:
    sent = encode(record, wheel=WHEEL, service="test")
    fields = {
        "topic": sent.topic,
        "partition": 0,
        "offset": 3,
        "key": sent.key,
        "value": sent.value,
        "headers": sent.headers,
    }
    return InboundMessage(**{**fields, **changes})


def compared(
    rows: Rows, *messages: InboundMessage, offsets: Sequence[GroupOffset] = ()
) -> DeepAudit:
    audit = DeepAudit(offsets=offsets)
    compare_events(messages, rows, wheel=WHEEL, audit=audit)
    return audit


def test_events_that_say_what_the_rows_say_are_no_finding() -> None:
    records = (a_prompt(), a_trace(), a_judgement(), a_slot_failure(), a_pair())
    audit = compared(Rows(records), *map(a_message, records))
    assert audit.findings == []
    assert audit.messages.total() == 5


def test_event_that_says_something_else_is_named_by_its_place_and_prompt() -> None:
    stored = a_trace(answer="1+1=2")
    audit = compared(Rows([stored]), a_message(a_trace(answer="1+1=9")))
    [finding] = audit.findings
    assert finding.fact == "test.traces[0]@3 says something else than the stored Trace"
    assert finding.prompt_id == stored.prompt_id


def test_event_without_a_row_is_a_finding_unless_it_is_a_dead_letter() -> None:
    message = a_message(a_trace())
    [finding] = compared(Rows(), message).findings
    assert finding.fact.startswith("test.traces[0]@3: a Trace that the store does not hold")
    assert message.value is not None
    audit = compared(Rows(dead=frozenset({message.value})), message)
    assert (audit.findings, audit.dead) == ([], 1)


def test_garbage_is_a_finding_unless_it_is_a_dead_letter() -> None:
    garbage = a_message(a_trace(), value=b"\xff")
    [finding] = compared(Rows(), garbage).findings
    assert "not a valid Trace" in finding.fact
    assert compared(Rows(dead=frozenset({b"\xff"})), garbage).findings == []


def an_offset(group: str, position: int, **changes: Any) -> GroupOffset:
    fields = {"topic": "test.traces", "committed": 0, "end": 9, "positions": {0: position}}
    return GroupOffset(**{**fields, "group": group, **changes})


def test_garbage_that_a_group_has_not_come_to_is_counted_and_no_finding() -> None:
    garbage = a_message(a_trace(), value=b"\xff", offset=3)
    behind = [an_offset("judging", 3), an_offset("monitoring", 4)]
    audit = compared(Rows(), garbage, offsets=behind)
    assert (audit.findings, audit.unread, audit.dead) == ([], 1, 0)
    past = [an_offset("judging", 4), an_offset("elsewhere", 0, topic="test.prompts")]
    audit = compared(Rows(), garbage, offsets=past)
    assert (len(audit.findings), audit.unread) == (1, 0)


def test_stored_pair_without_its_event_is_missed_from_the_time_that_the_topic_holds() -> None:
    early, late = (
        a_pair(a_prompt(text), paired_at=seconds(at)) for text, at in (("1", 10), ("2", 20))
    )
    audit = compared(Rows([early, late]), a_message(early), a_message(late, partition=1, offset=0))
    assert audit.pairs_since == seconds(20)
    name_unsent([StoredPair(late.pair_id, late.key)], audit)
    assert audit.findings == []
    unsent: PreferencePair = a_pair(a_prompt("3"))
    name_unsent([StoredPair(unsent.pair_id, unsent.key)], audit)
    assert [finding.rows for finding in audit.findings] == [(unsent.pair_id,)]


def test_topic_of_pairs_that_holds_none_tells_no_time() -> None:
    assert compared(Rows([a_prompt()]), a_message(a_prompt())).pairs_since is None


def test_messages_come_in_batches() -> None:
    messages = [a_message(a_prompt(), offset=number) for number in range(5)]
    assert [len(batch) for batch in batches(iter(messages), 2)] == [2, 2, 1]


def test_lag_is_what_is_left_to_read_and_never_less_than_nothing() -> None:
    assert an_offset("g", 3, committed=3, end=5).lag == 2
    assert an_offset("g", 6, committed=6, end=5).lag == 0
