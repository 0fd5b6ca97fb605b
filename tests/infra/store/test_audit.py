"""What an audit finds in a store in which one row was deleted, doubled or changed."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, insert, inspect, select, text, update

from deltawheel.contracts.audit import Audit, account
from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.judgement import Judgement
from deltawheel.contracts.letters import LetterMove, MoveKind
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.store import GroupEnd
from deltawheel.contracts.trace import FinishReason
from deltawheel.infra.store import tables
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import LATER, add_asked, open_next
from tests.records import (
    WHEEL,
    a_closing,
    a_dead_letter,
    a_generator,
    a_judgement,
    a_pair,
    a_paired_end,
    a_prompt,
    a_prompt_failure,
    a_quarantined_end,
    a_quarantined_pair,
    a_rubric,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)

PAIRED, TIED, ODD, SINGLE, DEAD, NOBODY, OPEN, AGAIN = (
    a_prompt(name)
    for name in ("paired", "tied", "odd", "single", "dead", "nobody", "open", "again")
)


class Tampered:
    """A store with one prompt for each way to end, and the hand that falsifies it."""

    def __init__(self, url: str) -> None:
        self.store = SqlStore(url, wheel=WHEEL)
        self.database = Database(url)
        fill(self.store)

    def audit(self, *, is_deep: bool = False) -> Audit:
        with self.store.snapshot() as snapshot:
            return account(snapshot, rubric=a_rubric(), is_deep=is_deep)

    def do(self, *statements: Any) -> None:
        with self.unbound() as connection:
            for statement in statements:
                connection.execute(statement)

    def unbound(self) -> Any:
        return _unbound(self.database)

    def facts(self, *, is_deep: bool = False) -> list[tuple[str, str]]:
        return [(found.kind, found.fact) for found in self.audit(is_deep=is_deep).findings]

    def close(self) -> None:
        self.store.close()
        self.database.close()


class _unbound:  # noqa: N801 - reads as a word where it is used
    """A transaction that checks no foreign keys."""

    def __init__(self, database: Database) -> None:
        self._inner = database._migrating()

    def __enter__(self) -> Connection:
        connection = self._inner.__enter__()
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        return connection

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)


def judge(store: SqlStore, prompt: Prompt, slot: int, level: float) -> Judgement:
    [trace] = store.add_traces([a_trace(an_assignment(prompt), slot)])
    return store.add_judgements([a_judgement(trace, level=level)])[0]


def fill(store: SqlStore) -> None:
    store.add_prompts([PAIRED, TIED, ODD, SINGLE, DEAD, NOBODY, OPEN, AGAIN])
    for prompt in (PAIRED, TIED, ODD, SINGLE, DEAD, OPEN, AGAIN):
        add_asked(store, prompt)
    for prompt, levels in ((PAIRED, (5, 2)), (TIED, (4, 4)), (ODD, (5, 2)), (OPEN, (5,))):
        for slot, level in enumerate(levels):
            judge(store, prompt, slot, level)
    judge(store, SINGLE, 0, 5)
    store.add_slot_failures([a_slot_failure(an_assignment(SINGLE), 1)])
    store.add_slot_failures([a_slot_failure(an_assignment(DEAD), slot) for slot in (0, 1)])
    store.add_prompt_failures([a_prompt_failure(NOBODY)])
    judge(store, AGAIN, 0, 5)
    store.add_slot_failures([a_slot_failure(an_assignment(AGAIN), 1)])
    single = {"outcome": Outcome.UNPAIRED, "cause": UnpairedCause.SINGLE_SURVIVOR}
    store.close_groups(
        [
            a_paired_end(a_pair(PAIRED)),
            GroupEnd(closing=a_closing(TIED, outcome=Outcome.UNPAIRED)),
            a_quarantined_end(a_quarantined_pair(a_pair(ODD))),
            GroupEnd(closing=a_closing(SINGLE, **single)),  # type: ignore[arg-type]
            GroupEnd(closing=a_closing(DEAD, outcome=Outcome.DEAD_LETTERED)),
            GroupEnd(closing=a_closing(NOBODY, outcome=Outcome.DEAD_LETTERED)),
            GroupEnd(closing=a_closing(AGAIN, **single)),  # type: ignore[arg-type]
        ]
    )
    open_next(store, AGAIN)
    judge(store, AGAIN, 1, 2)
    store.close_groups([GroupEnd(closing=a_closing(AGAIN, attempt=2), pairs=(a_pair(AGAIN),))])


@pytest.fixture
def tampered(url: str) -> Iterator[Tampered]:
    tampered = Tampered(url)
    yield tampered
    tampered.close()


def of(table: Table, prompt: Prompt) -> Any:
    return table.c.prompt_id == prompt.prompt_id


PAIR, PAIR_ID = a_pair(PAIRED), a_pair(PAIRED).pair_id
TRACE_0, TRACE_1 = (a_trace(an_assignment(PAIRED), slot).trace_id for slot in (0, 1))


def test_honest_store_is_clean_down_to_its_payloads(tampered: Tampered) -> None:
    audit = tampered.audit(is_deep=True)
    assert audit.findings == []
    assert (audit.prompts, audit.in_flight) == (8, 1)
    assert audit.outcomes == {
        Outcome.PAIRED: 2,
        Outcome.UNPAIRED: 2,
        Outcome.QUARANTINED: 1,
        Outcome.DEAD_LETTERED: 2,
    }


TAMPERINGS: dict[str, tuple[Any, str, str]] = {
    "a deleted pair": (
        lambda: delete(tables.PAIRS).where(of(tables.PAIRS, PAIRED)),
        "contradictory",
        "stored as paired, the evidence says unpaired",
    ),
    "a deleted quarantined pair": (
        lambda: delete(tables.QUARANTINE).where(of(tables.QUARANTINE, ODD)),
        "contradictory",
        "stored as quarantined, the evidence says unpaired",
    ),
    "a deleted judgement": (
        lambda: delete(tables.JUDGEMENTS).where(tables.JUDGEMENTS.c.trace_id == TRACE_0),
        "missing",
        "a slot end without its judgement",
    ),
    "a deleted slot end": (
        lambda: delete(tables.SLOT_ENDS).where(
            of(tables.SLOT_ENDS, PAIRED), tables.SLOT_ENDS.c.slot == 1
        ),
        "contradictory",
        "1 pairs, but 1 slots ended judged",
    ),
    "a deleted slot failure": (
        lambda: delete(tables.SLOT_ENDS).where(
            of(tables.SLOT_ENDS, SINGLE), tables.SLOT_ENDS.c.slot == 1
        ),
        "missing",
        "closed as unpaired with 1 of 2 slots ended",
    ),
    "a deleted trace behind a judgement": (
        lambda: delete(tables.TRACES).where(tables.TRACES.c.trace_id == TRACE_0),
        "missing",
        "a judgement without its trace",
    ),
    "a deleted assignment": (
        lambda: delete(tables.ASSIGNMENTS).where(of(tables.ASSIGNMENTS, PAIRED)),
        "missing",
        "its assignment: there are traces, judgements, slot ends or pairs",
    ),
    "a deleted prompt": (
        lambda: delete(tables.PROMPTS).where(of(tables.PROMPTS, PAIRED)),
        "missing",
        "a closing without its prompt",
    ),
    "a deleted prompt, whose pair is left": (
        lambda: delete(tables.PROMPTS).where(of(tables.PROMPTS, PAIRED)),
        "missing",
        "a pair without its prompt",
    ),
    "a deleted closing": (
        lambda: delete(tables.CLOSINGS).where(of(tables.CLOSINGS, PAIRED)),
        "contradictory",
        "has pairs but is not closed",
    ),
    "a deleted prompt failure": (
        lambda: delete(tables.PROMPT_FAILURES),
        "missing",
        "closed as dead-lettered with 0 of 0 slots ended",
    ),
    "a deleted transition": (
        lambda: delete(tables.TRANSITIONS),
        "contradictory",
        "marked as in attempt 2, but its transitions have opened 1",
    ),
    "a closing left by its transition": (
        lambda: delete(tables.TRANSITIONS),
        "missing",
        "a closing without its transition",
    ),
    "a deleted delta": (
        lambda: delete(tables.PAIR_DELTAS).where(
            tables.PAIR_DELTAS.c.pair_id == PAIR_ID,
            tables.PAIR_DELTAS.c.dimension == "factuality",
        ),
        "missing",
        "a pair without its delta of factuality",
    ),
    "all deltas of a pair": (
        lambda: delete(tables.PAIR_DELTAS).where(tables.PAIR_DELTAS.c.pair_id == PAIR_ID),
        "missing",
        "a pair without its delta",
    ),
    "a deleted reason": (
        lambda: delete(tables.QUARANTINE_REASONS),
        "missing",
        "a quarantined pair without its quarantine reason",
    ),
    "an outcome made worse": (
        lambda: (
            update(tables.CLOSINGS)
            .where(of(tables.CLOSINGS, PAIRED))
            .values(outcome="unpaired", cause="tie")
        ),
        "contradictory",
        "stored as unpaired, the evidence says paired",
    ),
    "an outcome made better": (
        lambda: (
            update(tables.CLOSINGS)
            .where(of(tables.CLOSINGS, TIED))
            .values(outcome="paired", cause=None)
        ),
        "contradictory",
        "stored as paired, the evidence says unpaired",
    ),
    "a false cause": (
        lambda: update(tables.CLOSINGS).where(of(tables.CLOSINGS, SINGLE)).values(cause="tie"),
        "contradictory",
        "closed as unpaired (tie), but 1 slots ended judged",
    ),
    "a mark taken away": (
        lambda: update(tables.PROMPTS).where(of(tables.PROMPTS, PAIRED)).values(closed_at=None),
        "contradictory",
        "prompts.closed_at says otherwise than the closings: closed as paired",
    ),
    "a mark put on": (
        lambda: update(tables.PROMPTS).where(of(tables.PROMPTS, OPEN)).values(closed_at=LATER),
        "contradictory",
        "prompts.closed_at says otherwise than the closings: not closed",
    ),
    "an attempt marked that nobody opened": (
        lambda: update(tables.PROMPTS).where(of(tables.PROMPTS, PAIRED)).values(attempt=3),
        "contradictory",
        "marked as in attempt 3, but its transitions have opened 1",
    ),
    "a slot said to have failed": (
        lambda: (
            update(tables.SLOT_ENDS)
            .where(of(tables.SLOT_ENDS, PAIRED), tables.SLOT_ENDS.c.slot == 0)
            .values(kind="failed")
        ),
        "contradictory",
        f"{PAIR_ID} holds a trace whose slot never ended judged: {TRACE_0}",
    ),
    "a slot end moved to another slot": (
        lambda: (
            update(tables.SLOT_ENDS)
            .where(of(tables.SLOT_ENDS, TIED), tables.SLOT_ENDS.c.slot == 1)
            .values(slot=7)
        ),
        "missing",
        "closed as unpaired with 1 of 2 slots ended",
    ),
    "a trace moved to the other's slot": (
        lambda: update(tables.TRACES).where(of(tables.TRACES, PAIRED)).values(slot=1),
        "double",
        "a trace whose slot has another",
    ),
}


@pytest.mark.parametrize("name", sorted(TAMPERINGS))
def test_one_falsified_row_is_found_and_named(tampered: Tampered, name: str) -> None:
    tamper, kind, fact = TAMPERINGS[name]
    tampered.do(tamper())
    assert (kind, fact) in tampered.facts()


def test_what_is_found_is_named_by_prompt_attempt_and_rows(tampered: Tampered) -> None:
    tampered.do(delete(tables.PAIRS).where(of(tables.PAIRS, AGAIN)))
    found = next(one for one in tampered.audit().findings if one.kind == "contradictory")
    assert (found.prompt_id, found.round, found.attempt) == (AGAIN.prompt_id, 0, 2)
    again = [a_trace(an_assignment(AGAIN), slot).trace_id for slot in (0, 1)]
    assert found.rows == (
        f"slot 0 of attempt 1: judged {again[0]}",
        "slot 1 of attempt 1: failed",
        f"slot 0 of attempt 2: judged {again[0]}",
        f"slot 1 of attempt 2: judged {again[1]}",
    )


def test_missing_judgement_is_named_by_slot_and_trace(tampered: Tampered) -> None:
    tampered.do(delete(tables.JUDGEMENTS).where(tables.JUDGEMENTS.c.trace_id == TRACE_0))
    found = [one for one in tampered.audit().findings if "without its judgement" in one.fact]
    assert [(one.prompt_id, one.attempt) for one in found] == [(PAIRED.prompt_id, 1)]
    [row] = found[0].rows
    assert "slot 0" in row
    assert TRACE_0 in row


KEYED = (
    tables.PAIRS,
    tables.SLOT_ENDS,
    tables.CLOSINGS,
    tables.JUDGEMENTS,
    tables.TRACES,
    tables.PAIR_DELTAS,
)


@pytest.mark.parametrize("table", KEYED, ids=lambda table: table.name)
def test_row_stored_twice_where_the_key_was_dropped_is_named(
    tampered: Tampered, table: Table
) -> None:
    with tampered.unbound() as connection:
        drop_key(connection, table)
        row = (
            connection.execute(
                select(table).where(table.c.pair_id == PAIR_ID)
                if "prompt_id" not in table.c
                else select(table).where(of(table, PAIRED))
            )
            .mappings()
            .first()
        )
        assert row is not None
        connection.execute(insert(table).values(**row))
    facts = tampered.facts()
    assert any(kind == "missing" and table.name in fact for kind, fact in facts)
    assert any(kind == "double" and fact.startswith("2 rows of one ") for kind, fact in facts)


def drop_key(connection: Connection, table: Table) -> None:
    """Take a table's primary key away, as a hand with too many rights would."""
    if connection.dialect.name == "postgresql":
        name = inspect(connection).get_pk_constraint(table.name)["name"]
        connection.execute(text(f"ALTER TABLE {table.name} DROP CONSTRAINT {name} CASCADE"))
        return
    connection.execute(text(f"CREATE TABLE keyless AS SELECT * FROM {table.name}"))
    connection.execute(text(f"DROP TABLE {table.name}"))
    connection.execute(text(f"ALTER TABLE keyless RENAME TO {table.name}"))


def test_mirror_image_under_another_id_is_named(tampered: Tampered) -> None:
    mirror = a_pair(PAIRED, chosen_slot=1, chosen_level=5, rejected_level=2)
    copy_pair(tampered, PAIR_ID, "pair_mirror", payload=mirror.model_dump_json())
    facts = tampered.facts()
    assert ("double", "2 pairs from 2 slots") in facts
    assert ("double", f"pair_mirror holds the same two traces as {PAIR_ID}") in facts


def copy_pair(tampered: Tampered, pair_id: str, new_id: str, **changes: Any) -> None:
    with tampered.unbound() as connection:
        for table in (tables.PAIRS, tables.PAIR_DELTAS):
            for row in (
                connection.execute(select(table).where(table.c.pair_id == pair_id)).mappings().all()
            ):
                known = {name: value for name, value in changes.items() if name in table.c}
                connection.execute(insert(table).values(**{**row, **known, "pair_id": new_id}))


def test_pair_among_many_slots_whose_id_no_two_traces_make_is_named(url: str) -> None:
    tampered = Tampered(url)
    prompt = a_prompt("wide")
    members = [a_generator(name) for name in ("strong", "weak", "mid")]
    assignment = an_assignment(prompt, generators=members)
    tampered.store.add_prompts([prompt])
    tampered.store.add_assignments([assignment])
    for slot, level in enumerate((5, 2, 2)):
        [trace] = tampered.store.add_traces([a_trace(assignment, slot)])
        tampered.store.add_judgements([a_judgement(trace, level=level)])
    pair = a_pair(prompt, generators=members[:2])
    tampered.store.close_groups([a_paired_end(pair)])
    assert tampered.facts() == []
    copy_pair(tampered, pair.pair_id, "pair_zz")
    facts = tampered.facts()
    tampered.close()
    assert facts == [("double", f"pair_zz holds the same two traces as {pair.pair_id}")]


def test_pair_with_a_cut_off_trace_is_named(tampered: Tampered) -> None:
    assignment = an_assignment(PAIRED)
    cut_off = a_trace(assignment, 0, finish_reason=FinishReason.LENGTH)
    held = tables.TRACES.c.trace_id == cut_off.trace_id
    tampered.do(
        update(tables.TRACES).where(held).values(payload=cut_off.model_dump_json()),
        update(tables.SLOT_ENDS)
        .where(of(tables.SLOT_ENDS, PAIRED), tables.SLOT_ENDS.c.slot == 0)
        .values(kind="failed", trace_id=None),
    )
    assert (
        "contradictory",
        f"{PAIR_ID} holds a cut-off trace: {cut_off.trace_id}",
    ) in tampered.facts()


def test_pair_both_stored_and_quarantined_in_the_first_attempt_is_named(
    tampered: Tampered,
) -> None:
    odd = a_quarantined_pair(a_pair(ODD))
    copied = {"prompt_id": PAIRED.prompt_id, "pair_id": PAIR_ID}
    with tampered.unbound() as connection:
        for table in (tables.QUARANTINE, tables.QUARANTINE_REASONS):
            [row] = (
                connection.execute(select(table).where(table.c.pair_id == odd.pair.pair_id))
                .mappings()
                .all()
            )
            known = {name: value for name, value in copied.items() if name in table.c}
            connection.execute(insert(table).values(**{**row, **known}))
    fact = "a pair both stored and quarantined, though nobody has released it"
    assert ("contradictory", fact) in tampered.facts()


def test_tie_whose_traces_do_not_tie_is_named(tampered: Tampered) -> None:
    store = tampered.store
    prompt = add_asked(store, a_prompt("no tie"))
    for slot, level in enumerate((5, 2)):
        judge(store, prompt, slot, level)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    [(kind, fact)] = tampered.facts()
    assert kind == "contradictory"
    assert fact.startswith("closed as a tie, but its traces differ by 3 points")


@pytest.mark.parametrize(
    ("tamper", "fact"),
    [
        (
            lambda: (
                update(tables.PAIR_DELTAS)
                .where(
                    tables.PAIR_DELTAS.c.pair_id == PAIR_ID,
                    tables.PAIR_DELTAS.c.dimension == "factuality",
                )
                .values(delta=0.5)
            ),
            "pair_deltas.delta of factuality is 0.5, but the pair says 3.0",
        ),
        (
            lambda: (
                update(tables.PAIRS).where(of(tables.PAIRS, PAIRED)).values(chosen_generator="mid")
            ),
            "pairs.chosen_generator is 'mid', but its payload says 'strong'",
        ),
        (
            lambda: (
                update(tables.CLOSINGS)
                .where(of(tables.CLOSINGS, TIED))
                .values(cause="judged-otherwise")
            ),
            "closings.cause is 'judged-otherwise', but its payload says 'tie'",
        ),
        (
            lambda: (
                update(tables.TRACES)
                .where(tables.TRACES.c.trace_id == TRACE_0)
                .values(payload="{}")
            ),
            "the payload in traces is no Trace: trace_id: Field required",
        ),
    ],
)
def test_column_that_says_otherwise_than_its_payload_is_found_in_depth(
    tampered: Tampered, tamper: Callable[[], Any], fact: str
) -> None:
    tampered.do(tamper())
    assert tampered.facts() == []
    assert ("contradictory", fact) in tampered.facts(is_deep=True)


@pytest.mark.parametrize("is_dropped", [False, True])
def test_deleted_dead_letter_is_missed_by_what_names_it(
    tampered: Tampered, is_dropped: bool
) -> None:
    letter = a_dead_letter(OPEN.wire.encode(), prompt_key=OPEN.key)
    tampered.store.bury([Burial(letter, [a_slot_failure(an_assignment(OPEN), 1)])])
    if is_dropped:
        tampered.store.note_sent([letter.letter_id])
        move = LetterMove(
            letter_id=letter.letter_id,
            kind=MoveKind.DROPPED,
            by="ada",
            reason="seen",
            moved_at=seconds(9),
        )
        tampered.store.move_letters([move])
    assert tampered.facts(is_deep=True) == []
    tampered.do(delete(tables.DEAD_LETTERS))
    by = "a letter move" if is_dropped else "an unsent letter"
    assert tampered.facts() == [("missing", f"{by} without its dead letter")]


def test_moved_prompt_has_no_letter_and_none_is_missed(tampered: Tampered) -> None:
    entries = [entry for entry in tampered.store.letter_entries() if entry.prompt_key == DEAD.key]
    replayed = tampered.store.replay_prompts(
        entries, by="ada", reason="mended", at=LATER, expires_at=LATER + timedelta(days=1)
    )
    assert len(replayed.moved) == 1
    assert tampered.facts(is_deep=True) == []


def test_dead_letter_whose_bytes_were_changed_is_found_in_depth(tampered: Tampered) -> None:
    tampered.store.bury([Burial(a_dead_letter())])
    tampered.do(update(tables.DEAD_LETTERS).values(value=b"other"))
    assert tampered.facts() == []
    assert tampered.facts(is_deep=True) == [
        (
            "contradictory",
            "dead_letters.letter_id is not what the letter's bytes and payload say",
        )
    ]


def test_rows_of_another_wheel_are_nobodys_business(tampered: Tampered, url: str) -> None:
    other = SqlStore(url, wheel="other")
    prompt = a_prompt("theirs").model_copy(update={"wheel": "other"})
    other.add_prompts([prompt])
    with tampered.unbound() as connection:
        connection.execute(delete(tables.PROMPTS).where(tables.PROMPTS.c.wheel == "other"))
        closing = a_closing(prompt)
        connection.execute(
            insert(tables.CLOSINGS).values(
                wheel="other",
                prompt_id=prompt.prompt_id,
                round=0,
                attempt=1,
                outcome="paired",
                closed_at=closing.closed_at,
                payload=closing.model_dump_json(),
            )
        )
    assert tampered.facts() == []
    with other.snapshot() as snapshot:
        [finding] = account(snapshot).findings
    other.close()
    assert finding.fact == "a closing without its prompt"


def test_audit_is_of_one_moment_and_nobody_waits_for_it(tampered: Tampered) -> None:
    late = a_prompt("late", accepted_at=seconds(9))
    with tampered.store.snapshot() as snapshot:
        first = account(snapshot)
        tampered.store.add_prompts([late])
        tampered.do(delete(tables.PAIRS).where(of(tables.PAIRS, PAIRED)))
        again = account(snapshot)
    assert (again.prompts, again.findings) == (first.prompts, [])
    assert tampered.audit().prompts == first.prompts + 1


def test_pair_id_of_the_audit_is_that_of_the_record() -> None:
    traces = sorted((TRACE_0, TRACE_1))
    assert content_id("pair", 1, *traces, PAIR.rubric_digest) == PAIR_ID
