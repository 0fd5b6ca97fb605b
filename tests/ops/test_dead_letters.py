"""`deltawheel dead-letters` on a stopped wheel: what is listed, chosen, dropped and replayed."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, attempt_of, decode
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra import wiring
from deltawheel.ops.operator import operator_name
from tests.ops.stopped import a_config, settings_in
from tests.ops.terminals import Shell
from tests.records import (
    T0,
    WHEEL,
    a_closing,
    a_dead_letter,
    a_prompt,
    a_slot_failure,
    an_assignment,
    seconds,
)

HELD, REFUSED = a_prompt("1+1="), a_prompt("2+2=", domain="products")
TOPIC = f"{WHEEL}.traces"
HELD_LETTER = a_dead_letter(b'{"a": "trace"}', prompt_key=HELD.key, died_at=seconds(10))
GARBAGE = a_dead_letter(b"\xff\x1b[31mgarbage", died_at=seconds(20)).model_copy(
    update={"reason": "not a \x1b[31mvalid Trace: payload: Invalid JSON"}
)
SEEN_BY_MONITORING = GARBAGE.model_copy(
    update={"service": "monitoring", "died_at": seconds(21), "reason": "unknown event type"}
)
FOREIGN = a_dead_letter(died_at=seconds(30)).model_copy(update={"topic": "other.traces"})
EMPTY = a_dead_letter(None, died_at=seconds(40)).model_copy(update={"key": None})
LETTERS = (HELD_LETTER, GARBAGE, SEEN_BY_MONITORING, FOREIGN, EMPTY)
REFUSED_ID = f"{REFUSED.prompt_id}:0"
ALL_IDS = [
    EMPTY.letter_id,
    FOREIGN.letter_id,
    SEEN_BY_MONITORING.letter_id,
    GARBAGE.letter_id,
    HELD_LETTER.letter_id,
    REFUSED_ID,
]
"""Newest first, as `list` has them."""


def add_dead(store: Store, prompt: Prompt, letter: DeadLetter | None = None) -> None:
    """Store a prompt both of whose slots failed, one of them with this letter, and close it."""
    assignment = an_assignment(prompt)
    store.add_prompts([prompt])
    store.add_assignments([assignment])
    failures = [a_slot_failure(assignment, slot, reason=f"refused {slot}") for slot in (0, 1)]
    if letter is not None:
        store.bury([Burial(letter, [failures[0]])])
    store.add_slot_failures(failures)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.DEAD_LETTERED))])


@contextmanager
def opened(config: Path) -> Iterator[Store]:
    store = wiring.open_store(settings_in(config))
    yield store
    store.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    config = a_config(tmp_path)
    with opened(config) as store:
        add_dead(store, HELD, HELD_LETTER)
        add_dead(store, REFUSED)
        for letter in LETTERS[1:]:
            store.bury([Burial(letter)])
    return config


@pytest.fixture
def shell(config: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


@dataclass
class FakeProducer:
    """Keeps what it is given, unless it is told to fail."""

    fails: Callable[[], bool] = lambda: False
    sent: list[OutboundMessage] = field(default_factory=list)

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        if self.fails():
            raise RetryLaterError("the broker at nowhere does not answer")
        self.sent += messages

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def producer(config: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProducer:
    """A broker that runs, as `broker.kind: kafka` names one."""
    config.write_text(config.read_text() + "broker: {kind: kafka, bootstrap: 'nowhere:1'}\n")
    producer = FakeProducer()
    monkeypatch.setattr(wiring, "open_producer", lambda settings, timeout_s: producer)
    return producer


def run_json(shell: Shell, *arguments: str, code: int = 0) -> Any:
    done = shell.run("dead-letters", *arguments, "--json")
    assert done.code == code, done.err
    return json.loads(done.out)


def ids(shell: Shell, *options: str) -> list[str]:
    return [entry["id"] for entry in run_json(shell, "list", *options)]


def actions(shell: Shell, *arguments: str, code: int = 0) -> dict[str, str]:
    steps = run_json(shell, *arguments, code=code)["steps"]
    return {step["entry_id"]: step["action"] for step in steps}


# list and show


def test_everything_that_waits_is_listed_newest_first(shell: Shell) -> None:
    assert ids(shell) == ALL_IDS
    first = run_json(shell, "list")[3]
    assert first == {
        "id": GARBAGE.letter_id,
        "kind": "record",
        "service": "judging",
        "topic": TOPIC,
        "error": "InvalidRecordError",
        "reason": GARBAGE.reason,
        "attempt": 1,
        "prompt_id": None,
        "round": None,
        "domain": None,
        "num_bytes": len(GARBAGE.value or b""),
        "died_at": "2026-01-01T00:00:20+00:00",
        "move": None,
    }
    listed = shell.run("dead-letters", "list").out
    assert "6 dead letters" in listed
    assert "\x1b" not in listed
    assert r"not a \x1b[31mvalid Trace" in listed


def test_pages_go_on_behind_an_id(shell: Shell) -> None:
    page = shell.run("dead-letters", "list", "--limit", "2").out
    assert f"more: --after {ALL_IDS[1]}" in page
    assert ids(shell, "--limit", "2", "--after", ALL_IDS[1]) == ALL_IDS[2:4]
    assert "more:" not in shell.run("dead-letters", "list", "--after", ALL_IDS[1]).out


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["service=monitoring"], [2]),
        (["service~=^m"], [2]),
        (["topic=traces"], [0, 2, 3, 4]),
        (["topic=other.traces"], [1]),
        (["error=InvalidRecordError"], [0, 1, 2, 3, 4]),
        (["reason=Invalid JSON"], [3]),
        (["reason~=(?i)invalid json$"], [3]),
        ([f"prompt={HELD.prompt_id}"], [4]),
        ([f"prompt={REFUSED.prompt_id}:0"], [5]),
        (["domain=products"], [5]),
        (["kind=prompt"], [5]),
        (["kind=record", "service=monitoring"], [2]),
        (["kind=prompt", "service=monitoring"], []),
        (["since=2026-01-01T00:00:21"], [0, 1, 2]),
        (["until=2026-01-01T01:00:20+01:00"], [4, 5]),
        (["since=1d"], []),
        (["until=1d"], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_filters_narrow_the_list(shell: Shell, filters: list[str], found: list[int]) -> None:
    options = [part for text in filters for part in ("--filter", text)]
    assert ids(shell, *options) == [ALL_IDS[index] for index in found]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("judging", "'judging' is neither key=value nor key~=pattern"),
        ("colour=red", "the keys are service, topic, error, reason, prompt, domain, kind, since"),
        ("reason~=(", "no regular expression, missing )"),
        ("since=yesterday", "'yesterday' is no time: give an age such as 90m or 2d"),
        ("since~=2026", "times take no ~="),
    ],
)
@pytest.mark.parametrize("command", ["list", "replay", "drop"])
def test_wrong_filter_exits_2_and_says_what_would_be_one(
    shell: Shell, command: str, text: str, said: str
) -> None:
    done = shell.run("dead-letters", command, "--filter", text)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_record_is_shown_with_its_place_and_its_bytes_made_visible(shell: Shell) -> None:
    shown = shell.run("dead-letters", "show", GARBAGE.letter_id).out
    assert "\x1b" not in shown
    assert f"at        {TOPIC}, partition 0, offset 7" in shown
    assert "by        judging: InvalidRecordError" in shown
    assert r"reason    not a \x1b[31mvalid Trace" in shown
    assert r"key       \x00key" in shown
    assert "header    ce_type: no text: fe" in shown
    assert "no text: ff 1b 5b" in shown
    held = shell.run("dead-letters", "show", HELD_LETTER.letter_id).out
    assert '    {"a": "trace"}' in held
    assert f"prompt    {HELD.prompt_id}:0\n" in held


def test_lines_of_a_payload_cannot_pass_for_ours(shell: Shell, config: Path) -> None:
    sly = a_dead_letter(b"x\nreason    all is well").model_copy(
        update={"reason": "no\nreason    none", "key": b"k\nreason    none"}
    )
    with opened(config) as store:
        store.bury([Burial(sly)])
    shown = shell.run("dead-letters", "show", sly.letter_id).out
    assert [line for line in shown.splitlines() if line.startswith("reason ")] == ["reason    no"]


def test_long_payload_is_cut_for_people_and_whole_for_machines(shell: Shell, config: Path) -> None:
    long = a_dead_letter(b"x" * 100_000)
    with opened(config) as store:
        store.bury([Burial(long)])
    shown = shell.run("dead-letters", "show", long.letter_id).out
    assert "x … 100000 characters" in shown
    assert len(shown) < 6_000
    assert len(run_json(shell, "show", long.letter_id)["value"]["text"]) == 100_000


def test_json_has_the_bytes_and_raw_writes_them(shell: Shell, tmp_path: Path) -> None:
    shown = run_json(shell, "show", GARBAGE.letter_id)
    assert GARBAGE.value is not None
    assert shown["value"] == {"text": None, "base64": base64.b64encode(GARBAGE.value).decode()}
    assert shown["key"]["text"] == "\0key"
    assert (shown["partition"], shown["offset"]) == (0, 7)
    file = tmp_path / "value"
    assert shell.run("dead-letters", "show", GARBAGE.letter_id, "--raw", str(file)).code == 0
    assert file.read_bytes() == GARBAGE.value
    done = shell.run("dead-letters", "show", EMPTY.letter_id, "--raw", str(file))
    assert (done.code, done.sentence) == (1, f"{EMPTY.letter_id} has no value to write")


def test_refused_prompt_is_shown_with_the_reasons_of_its_slots(shell: Shell) -> None:
    shown = shell.run("dead-letters", "show", REFUSED_ID).out
    assert "slot 0    refused 0" in shown
    assert "slot 1    refused 1" in shown
    assert "    2+2=" in shown
    told = run_json(shell, "show", REFUSED_ID)
    assert told["kind"] == "prompt"
    assert [failure["reason"] for failure in told["failures"]] == ["refused 0", "refused 1"]


@pytest.mark.parametrize("command", [["show"], ["replay"], ["drop"], ["list", "--after"]])
@pytest.mark.parametrize("entry_id", ["letter_0", f"{HELD.prompt_id}:7"])
def test_unknown_id_exits_1_with_one_sentence(
    shell: Shell, command: list[str], entry_id: str
) -> None:
    done = shell.run("dead-letters", *command, entry_id)
    said = f"there is no dead letter {entry_id}; `deltawheel dead-letters list` names them"
    assert (done.code, done.sentence) == (1, said)


def test_status_counts_what_waits_and_names_the_newest(shell: Shell) -> None:
    status = json.loads(shell.run("status", "--json").out)
    assert (status["dead_letters"], status["unmoved_dead_letters"]) == (5, 5)
    assert status["newest_dead_letter"]["id"] == EMPTY.letter_id
    assert f"newest dead letter {EMPTY.letter_id}: judging: not a" in shell.run("status").out
    run_json(shell, "drop", "--all")
    status = json.loads(shell.run("status", "--json").out)
    assert (status["dead_letters"], status["unmoved_dead_letters"]) == (5, 0)
    assert status["newest_dead_letter"] is None
    assert "newest dead letter" not in shell.run("status").out


# drop


@pytest.mark.parametrize("command", ["replay", "drop"])
def test_nothing_is_done_by_accident(shell: Shell, command: str) -> None:
    done = shell.run("dead-letters", command)
    assert done.code == 2
    assert "name what you mean: an ID, a --filter, or --all" in done.err
    done = shell.run("dead-letters", command, "--all", "--filter", "kind=record")
    assert done.code == 2
    assert ids(shell) == ALL_IDS


def test_dropped_letters_are_kept_and_listed_only_on_request(shell: Shell) -> None:
    dropped = actions(shell, "drop", "--filter", "topic=traces", "--reason", "noise", "--by", "ann")
    assert set(dropped.values()) == {"drop"}
    assert ids(shell) == [FOREIGN.letter_id, REFUSED_ID], "nor is the prompt of one listed instead"
    everything = run_json(shell, "list", "--with-moved")
    assert [entry["id"] for entry in everything] == ALL_IDS
    move = everything[0]["move"]
    assert (move["kind"], move["by"], move["reason"]) == ("dropped", "ann", "noise")
    assert "dropped   by ann at " in shell.run("dead-letters", "show", EMPTY.letter_id).out
    again = run_json(shell, "drop", EMPTY.letter_id)["steps"]
    assert again[0]["action"] == "nothing"
    assert again[0]["detail"].startswith("dropped by ann at ")


def test_prompt_can_be_dropped(shell: Shell) -> None:
    assert actions(shell, "drop", REFUSED_ID) == {REFUSED_ID: "drop"}
    assert REFUSED_ID not in ids(shell)
    assert REFUSED_ID in ids(shell, "--with-moved")


def test_who_drops_is_the_systems_user_unless_said_otherwise(shell: Shell) -> None:
    run_json(shell, "drop", REFUSED_ID)
    move = run_json(shell, "show", REFUSED_ID)["move"]
    assert (move["by"], move["reason"]) == (operator_name(), "no reason given")


def test_limit_takes_the_newest(shell: Shell) -> None:
    assert list(actions(shell, "drop", "--all", "--limit", "2")) == ALL_IDS[:2]
    assert ids(shell) == ALL_IDS[2:]


# replay


def test_dry_run_says_what_a_replay_would_do_and_changes_nothing(
    shell: Shell, producer: FakeProducer
) -> None:
    expected = {
        EMPTY.letter_id: "refuse",
        FOREIGN.letter_id: "refuse",
        SEEN_BY_MONITORING.letter_id: "publish",
        GARBAGE.letter_id: "publish",
        HELD_LETTER.letter_id: "open-attempt",
        REFUSED_ID: "open-attempt",
    }
    assert actions(shell, "replay", "--all", "--dry-run", code=1) == expected
    assert set(actions(shell, "drop", "--all", "--dry-run").values()) == {"drop"}
    assert ids(shell) == ALL_IDS
    assert producer.sent == []
    assert actions(shell, "replay", "--all", code=1) == expected, "and that is what it does"


def test_replay_opens_attempts_and_publishes_what_they_owe_at_once(
    shell: Shell, config: Path, producer: FakeProducer
) -> None:
    done = run_json(shell, "replay", HELD_LETTER.letter_id, REFUSED_ID, "--reason", "model mended")
    assert [step["detail"] for step in done["steps"]] == [
        f"attempt 2 of {prompt.prompt_id}:0" for prompt in (HELD, REFUSED)
    ]
    assert (done["num_published"], done["broker_fault"]) == (2, None)
    assert [decode(as_read(message), wheel=WHEEL) for message in producer.sent] == [HELD, REFUSED]
    with opened(config) as store:
        groups = store.groups([HELD.key, REFUSED.key])
    assert {group.attempt for group in groups.values()} == {2}
    assert ids(shell) == ALL_IDS[:4]


def test_replaying_twice_changes_nothing_more(
    shell: Shell, config: Path, producer: FakeProducer
) -> None:
    chosen = [HELD_LETTER.letter_id, GARBAGE.letter_id, REFUSED_ID]
    first = actions(shell, "replay", *chosen)
    assert "nothing" not in first.values()
    num_sent = len(producer.sent)
    with opened(config) as store:
        before = store.groups([HELD.key, REFUSED.key])
    assert set(actions(shell, "replay", *chosen).values()) == {"nothing"}
    with opened(config) as store:
        assert store.groups([HELD.key, REFUSED.key]) == before
    assert len(producer.sent) == num_sent


def as_read(message: OutboundMessage) -> InboundMessage:
    return InboundMessage(
        topic=message.topic,
        partition=0,
        offset=0,
        key=message.key,
        value=message.value,
        headers=message.headers,
    )


def test_other_records_are_published_as_the_bytes_they_were_once_for_all_their_letters(
    shell: Shell, producer: FakeProducer
) -> None:
    replayed = actions(shell, "replay", "--filter", "reason~=JSON|unknown event")
    assert replayed == {GARBAGE.letter_id: "publish", SEEN_BY_MONITORING.letter_id: "publish"}
    [sent] = producer.sent
    assert (sent.topic, sent.key, sent.value) == (TOPIC, GARBAGE.key, GARBAGE.value)
    assert sent.headers[:-1] == GARBAGE.headers
    assert attempt_of(as_read(sent)) == 2
    assert GARBAGE.letter_id not in ids(shell)


def test_what_cannot_be_published_is_refused_and_stays(
    shell: Shell, producer: FakeProducer
) -> None:
    done = run_json(shell, "replay", FOREIGN.letter_id, EMPTY.letter_id, code=1)
    assert [step["detail"] for step in done["steps"]] == [
        "the wheel test reads no topic other.traces: drop it",
        "it has neither key nor value, which no broker takes: drop it",
    ]
    assert producer.sent == []
    assert ids(shell) == ALL_IDS


def test_record_above_the_limit_is_refused_with_the_key_to_raise(
    shell: Shell, config: Path, producer: FakeProducer
) -> None:
    limit = settings_in(config).broker.max_message_bytes
    large = a_dead_letter(b"x" * limit)
    with opened(config) as store:
        store.bury([Burial(large)])
    [step] = run_json(shell, "replay", large.letter_id, code=1)["steps"]
    assert f"are above broker.max_message_bytes ({limit}): raise that" in step["detail"]


def test_record_counts_as_replayed_only_once_the_broker_has_it(
    shell: Shell, producer: FakeProducer
) -> None:
    producer.fails = lambda: True
    done = run_json(shell, "replay", GARBAGE.letter_id, HELD_LETTER.letter_id, code=1)
    assert {step["entry_id"]: step["action"] for step in done["steps"]} == {
        GARBAGE.letter_id: "refuse",
        HELD_LETTER.letter_id: "open-attempt",
    }
    assert done["broker_fault"] == "the broker at nowhere does not answer"
    assert GARBAGE.letter_id in ids(shell)
    assert HELD_LETTER.letter_id not in ids(shell), "its event is owed, and curation publishes it"
    producer.fails = lambda: False
    assert actions(shell, "replay", GARBAGE.letter_id) == {GARBAGE.letter_id: "publish"}


def test_stopped_wheel_opens_attempts_and_says_that_records_need_its_broker(shell: Shell) -> None:
    done = shell.run("dead-letters", "replay", REFUSED_ID)
    assert done.code == 0
    assert "open-attempt: 1" in done.out
    assert "the wheel is stopped, and its broker with it: `deltawheel up` starts them" in done.err
    [step] = run_json(shell, "replay", GARBAGE.letter_id, code=1)["steps"]
    assert step["detail"].startswith("not published: the wheel is stopped")


def test_many_are_replayed_in_batches(shell: Shell, config: Path, producer: FakeProducer) -> None:
    letters = [a_dead_letter(b"%d" % number, died_at=T0) for number in range(1_200)]
    with opened(config) as store:
        for letter in letters:
            store.bury([Burial(letter)])
    replayed = actions(shell, "replay", "--filter", "until=2026-01-01T00:00:01")
    assert len(replayed) == len(producer.sent) == 1_200
    assert ids(shell) == ALL_IDS
