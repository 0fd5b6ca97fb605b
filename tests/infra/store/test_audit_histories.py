"""Whatever honest work does, in any order, is clean; whatever one row is falsified, is found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Float, Table, and_, delete, select, update

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.audit import account
from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.evidence import Finding
from deltawheel.contracts.interruptions import Outage
from deltawheel.contracts.letters import LetterMove, MoveKind
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.transition import TransitionKind
from deltawheel.infra.store import tables
from deltawheel.infra.store.columns import METADATA, UtcDateTime
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.loop_tables import UNSENT_LETTERS
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.curation.pairing import form_pairs, group_end
from tests.infra.store.stored import open_next
from tests.postgres import PostgresServer
from tests.records import (
    T0,
    WHEEL,
    a_dead_letter,
    a_generator,
    a_judgement,
    a_prompt,
    a_prompt_failure,
    a_rubric,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)


def a_letter_move(letter_id: str) -> LetterMove:
    return LetterMove(
        letter_id=letter_id, kind=MoveKind.DROPPED, by="ada", reason="seen", moved_at=seconds(9)
    )


PROMPTS = tuple(a_prompt(f"{number}+1=", round=number % 2) for number in range(2))
LEVELS = (4.0, 5.0, 4.0)
"""Of the slots' traces: two of three tie."""


def plan(prompt: Prompt) -> Assignment:
    """Deal the last prompt three slots, the others two."""
    names = ("strong", "weak", "mid") if prompt is PROMPTS[-1] else ("strong", "weak")
    return an_assignment(prompt, generators=[a_generator(name) for name in names])


@dataclass
class World:
    """A store, and honest work on it: each step does what a service does, or nothing."""

    store: SqlStore
    database: Database
    clock: float = 10.0
    steps: dict[str, Callable[[Prompt, int], object]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = {
            "accept": lambda prompt, _: self.store.add_prompts([prompt]),
            "assign": self.assign,
            "give up": self.give_up,
            "trace": self.trace,
            "judge": self.judge,
            "fail": self.fail,
            "bury": self.bury,
            "send letters": lambda *_: self.send_letters(),
            "drop letters": lambda *_: self.drop_letters(),
            "expire": self.expire,
            "close": lambda prompt, _: self.close(prompt),
            "close with a failed check": lambda prompt, _: self.close(prompt, passes=False),
            "replay": lambda prompt, _: open_next(self.store, prompt),
            "release": lambda prompt, _: open_next(self.store, prompt, kind=TransitionKind.RELEASE),
        }

    def clear(self) -> None:
        with self.database._migrating() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"TRUNCATE {', '.join(METADATA.tables)}")
                return
            for table in METADATA.tables.values():
                connection.execute(delete(table))

    def assign(self, prompt: Prompt, _: int) -> None:
        group = self.store.group(prompt.key)
        if group and group.prompt_failure is None:
            self.store.add_assignments([plan(prompt)])

    def give_up(self, prompt: Prompt, _: int) -> None:
        group = self.store.group(prompt.key)
        if group and group.assignment is None:
            failure = a_prompt_failure(prompt)
            self.store.add_prompt_failures([failure.model_copy(update={"attempt": group.attempt})])

    def trace(self, prompt: Prompt, slot: int) -> None:
        group = self.store.group(prompt.key)
        if group and group.assignment and slot < len(group.assignment.slots):
            self.store.add_traces([a_trace(group.assignment, slot)])

    def judge(self, prompt: Prompt, slot: int) -> None:
        group = self.store.group(prompt.key)
        for trace in group.traces.values() if group else ():
            if trace.slot == slot:
                self.store.add_judgements([a_judgement(trace, level=LEVELS[slot])])

    def fail(self, prompt: Prompt, slot: int) -> None:
        group = self.store.group(prompt.key)
        if group and group.assignment and slot < len(group.assignment.slots):
            failure = a_slot_failure(group.assignment, slot)
            self.store.add_slot_failures([failure.model_copy(update={"attempt": group.attempt})])

    def bury(self, prompt: Prompt, slot: int) -> None:
        group = self.store.group(prompt.key)
        if group and group.assignment and slot < len(group.assignment.slots):
            failure = a_slot_failure(group.assignment, slot)
            letter = a_dead_letter(prompt.wire.encode(), prompt_key=prompt.key)
            mark = {"attempt": group.attempt}
            end = failure.model_copy(update=mark)
            self.store.bury([Burial(letter.model_copy(update=mark), [end])])

    def send_letters(self) -> None:
        self.store.note_sent([letter.letter_id for letter in self.store.dead_letters(99)])

    def drop_letters(self) -> None:
        letters = [each.letter_id for each in self.store.dead_letters(99)]
        self.store.move_letters([a_letter_move(letter_id) for letter_id in letters])

    def expire(self, prompt: Prompt, _: int) -> None:
        outage = Outage(dependency="server:main", began_at=seconds(1), ended_at=seconds(9))
        self.store.note_outages([outage])
        late = seconds(0) + timedelta(days=3)
        self.store.add_slot_failures(
            [end for end in self.store.expired(at=late, limit=99) if end.key == prompt.key]
        )

    def close(self, prompt: Prompt, *, passes: bool = True) -> None:
        group = self.store.group(prompt.key)
        if group is None or not group.has_ended:
            return
        self.clock += 1
        at = seconds(self.clock)
        pairs = form_pairs(group, a_rubric(), at=at)
        failures = {} if passes else {pair.pair_id: ("texts-differ",) for pair in pairs[:1]}
        self.store.close_groups([group_end(group, pairs, failures, rubric=a_rubric(), at=at)])

    def live(self, history: list[tuple[str, int, int]]) -> None:
        self.clear()
        for name, prompt, slot in history:
            self.steps[name](PROMPTS[prompt], slot)

    def findings(self, *, is_deep: bool = False) -> list[Finding]:
        with self.store.snapshot() as snapshot:
            return account(snapshot, rubric=a_rubric(), is_deep=is_deep).findings


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("histories")
    yield from worlds(f"sqlite:///{folder}/s.db")


@pytest.fixture(scope="module")
def postgres_world(postgres: PostgresServer) -> Iterator[World]:
    with postgres.database() as url:
        yield from worlds(url)


def worlds(url: str) -> Iterator[World]:
    store, database = SqlStore(url, wheel=WHEEL), Database(url)
    yield World(store, database)
    store.close()
    database.close()


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)]
)
def world(request: pytest.FixtureRequest) -> World:
    world: World = request.getfixturevalue(f"{request.param}_world")
    return world


NAMES = (
    "accept",
    "assign",
    "give up",
    "trace",
    "judge",
    "fail",
    "bury",
    "send letters",
    "drop letters",
    "expire",
    "close",
    "close with a failed check",
    "replay",
    "release",
)
steps = st.tuples(st.sampled_from(NAMES), st.integers(0, 1), st.integers(0, 2))
begin = [(name, number, 0) for number in range(2) for name in ("accept", "assign")]
judged = [
    (name, number, slot) for number in range(2) for slot in range(3) for name in ("trace", "judge")
]
histories = st.one_of(
    st.lists(steps, max_size=25),
    st.lists(steps, max_size=25).map(lambda more: begin + more),
    st.lists(steps, max_size=15).map(lambda more: begin + more[:5] + judged + more[5:]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories)
def test_any_honest_history_is_clean(world: World, history: list[tuple[str, int, int]]) -> None:
    world.live(history)
    assert world.findings(is_deep=True) == []


DELETED = (
    tables.PROMPTS,
    tables.ASSIGNMENTS,
    tables.TRACES,
    tables.JUDGEMENTS,
    tables.SLOT_ENDS,
    tables.PROMPT_FAILURES,
    tables.CLOSINGS,
    tables.TRANSITIONS,
    tables.PAIRS,
    tables.PAIR_DELTAS,
    tables.QUARANTINE,
    tables.QUARANTINE_REASONS,
    tables.DEAD_LETTERS,
)
UNSAID = {"payload", "wheel"}
"""Columns that are falsified by hand elsewhere."""
TIMES = {"ended_at"}
"""A judged slot's end says its time twice, and nothing hangs on it."""


def is_evidence(world: World, table: Table, row: Any) -> bool:
    """Whether honest work cannot have left the store without this row.

    Of a prompt in flight it can, and so it can of late work and of attempts that were given up
    before they closed: without the row, the store is one that has not come as far.
    """
    if table is tables.DEAD_LETTERS:
        return is_named(world, row["letter_id"])
    if "prompt_id" not in row:
        return True
    key = next(p.key for p in PROMPTS if (p.prompt_id, p.round) == (row["prompt_id"], row["round"]))
    group = world.store.group(key)
    if group is None or group.closing is None:
        return False
    if table in (tables.SLOT_ENDS, tables.PROMPT_FAILURES) and row["attempt"] < group.attempt:
        return False
    if table is tables.PROMPT_FAILURES:
        return group.assignment is None
    if table is tables.ASSIGNMENTS:
        return bool(group.ended_slots)
    if table in (tables.TRACES, tables.JUDGEMENTS):
        failed = {failure.slot for failure in group.slot_failures}
        return row["slot"] in group.ended_slots - failed
    return True


def is_named(world: World, letter_id: str) -> bool:
    """Whether a letter is on its way to its topic, or an operator has moved it."""
    with world.database.reading() as connection:
        return any(
            connection.scalar(select(table.c.letter_id).where(table.c.letter_id == letter_id))
            for table in (UNSENT_LETTERS, tables.LETTER_MOVES)
        )


def hides_in_a_number(world: World, table: Table, row: Any) -> bool:
    """Whether only `--deep`, which compares ids and payloads, can tell that this row is missing.

    The trace or judgement of a slot that failed may make up for it in the count, and a dimension
    that no other pair has is missed by none.
    """
    if table is tables.PAIR_DELTAS:
        return world.store.count_pairs() == 1
    if table not in (tables.TRACES, tables.JUDGEMENTS):
        return False
    key = next(p.key for p in PROMPTS if (p.prompt_id, p.round) == (row["prompt_id"], row["round"]))
    group = world.store.group(key)
    return group is not None and bool(group.slot_failures)


def a_row(world: World, data: st.DataObject) -> tuple[Table, Any]:
    table = data.draw(st.sampled_from(DELETED), label="table")
    with world.database.reading() as connection:
        rows = (
            connection.execute(select(table).order_by(*table.primary_key.columns)).mappings().all()
        )
    assume(rows)
    row = data.draw(st.sampled_from(rows), label="row")
    assume(is_evidence(world, table, row))
    return table, row


def key_of(table: Table, row: Any) -> Any:
    return and_(*(column == row[column.name] for column in table.primary_key.columns))


def change(world: World, statement: Any) -> None:
    with world.database._migrating() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.execute(statement)


closed = [("close", number, 0) for number in range(len(PROMPTS))]
whole = st.lists(steps, max_size=12).map(
    lambda more: [*begin, *more[:4], *judged, ("fail", 1, 1), ("bury", 1, 2), *closed, *more[4:]]
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=whole, data=st.data())
def test_any_row_that_is_deleted_is_missed(
    world: World, history: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    world.live(history)
    table, row = a_row(world, data)
    is_hidden = hides_in_a_number(world, table, row)
    change(world, delete(table).where(key_of(table, row)))
    assert world.findings(is_deep=is_hidden) != []


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=whole, data=st.data())
def test_any_column_that_is_falsified_is_found_in_depth(
    world: World, history: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    world.live(history)
    table, row = a_row(world, data)
    names = sorted(set(row) - UNSAID - (TIMES if table is tables.SLOT_ENDS else set()))
    name = data.draw(st.sampled_from(names), label="column")
    change(
        world,
        update(table).where(key_of(table, row)).values({name: another(table.c[name], row[name])}),
    )
    assert world.findings(is_deep=True) != []


def another(column: Any, value: Any) -> Any:
    """Return something else that the column can hold."""
    if value is None:
        empty = {Float: 0.0, UtcDateTime: T0}
        value = next((held for kind, held in empty.items() if isinstance(column.type, kind)), "")
    match value:
        case str():
            return f"{value}-falsified"
        case bytes():
            return value + b"-falsified"
        case int() | float():
            return value + 7
        case _:
            return value + timedelta(seconds=1)
