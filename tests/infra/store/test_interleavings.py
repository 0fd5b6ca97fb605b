"""In whatever order, and however often, records arrive: one outcome, no double pair."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.audit import examine
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra.store.columns import METADATA
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import LATER
from tests.postgres import PostgresServer
from tests.records import (
    WHEEL,
    a_closing,
    a_generator,
    a_judgement,
    a_pair,
    a_prompt,
    a_slot_failure,
    a_trace,
    an_assignment,
)

PROMPT = a_prompt()
ASSIGNMENT = an_assignment(PROMPT)


def close(store: Store, chosen_slot: int) -> None:
    """Close the group as curation does: only once it has ended, and by what is stored."""
    group = store.group(PROMPT.key)
    if group is None or not group.has_ended:
        return
    failed = {failure.slot for failure in group.slot_failures}
    if not failed:
        pair = a_pair(PROMPT, chosen_slot=chosen_slot)
        store.close_groups([GroupEnd(closing=a_closing(PROMPT), pairs=(pair,))])
        return
    outcome = Outcome.DEAD_LETTERED if failed == {0, 1} else Outcome.UNPAIRED
    end = a_closing(PROMPT, outcome=outcome, cause=UnpairedCause.SINGLE_SURVIVOR)
    store.close_groups([GroupEnd(closing=end)])


def judge(store: Store, slot: int, level: float) -> None:
    """Judge a trace only if the store holds it, as the judging service does."""
    trace = store.trace(ASSIGNMENT.trace_id(slot))
    if trace is not None:
        store.add_judgements([a_judgement(trace, level=level)])


def reassign(store: Store) -> None:
    """Come second with another plan; the first is read back, whatever the pool is by now."""
    store.add_assignments([ASSIGNMENT])
    others = (a_generator("weak"), a_generator("strong"))
    assert store.add_assignments([an_assignment(PROMPT, generators=others)])[0] == ASSIGNMENT


STEPS: dict[str, Callable[[Store], object]] = {
    "prompt": lambda store: store.add_prompts([PROMPT, PROMPT]),
    "assignment": lambda store: store.add_assignments([ASSIGNMENT])[0],
    "other assignment": reassign,
    "expiry": lambda store: [
        store.add_slot_failures([failure])[0] for failure in store.expired(at=LATER, limit=1)
    ],
    "close": lambda store: close(store, 0),
    "close mirrored": lambda store: close(store, 1),
    **{
        f"{verb} {slot}": lambda store, slot=slot, act=act: act(store, slot)  # type: ignore[misc]
        for slot in (0, 1)
        for verb, act in {
            "trace": lambda store, slot: store.add_traces([a_trace(ASSIGNMENT, slot)])[0],
            "resampled trace": lambda store, slot: store.add_traces(
                [a_trace(ASSIGNMENT, slot, answer="1+1=9")]
            )[0],
            "judgement": lambda store, slot: judge(store, slot, 4),
            "other judgement": lambda store, slot: judge(store, slot, 2),
            "failure": lambda store, slot: store.add_slot_failures(
                [a_slot_failure(ASSIGNMENT, slot)]
            )[0],
        }.items()
    },
}


Fresh = Callable[[], AbstractContextManager[Store]]


@pytest.fixture(scope="module")
def sqlite_stores() -> Fresh:
    @contextmanager
    def fresh() -> Iterator[Store]:
        with tempfile.TemporaryDirectory() as folder, opened(f"sqlite:///{folder}/s.db") as store:
            yield store

    return fresh


@pytest.fixture(scope="module")
def postgres_stores(postgres: PostgresServer) -> Iterator[Fresh]:
    everything = ", ".join(METADATA.tables)
    with postgres.database() as url, opened(url) as store, closing(Database(url)) as database:

        @contextmanager
        def fresh() -> Iterator[Store]:
            with database.writing() as connection:
                connection.exec_driver_sql(f"TRUNCATE {everything}")
            yield store

        yield fresh


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)]
)
def fresh_store(request: pytest.FixtureRequest) -> Fresh:
    """Make an empty store for each of a test's many examples."""
    fresh: Fresh = request.getfixturevalue(f"{request.param}_stores")
    return fresh


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = SqlStore(url, wheel=WHEEL)
    try:
        yield store
    finally:
        store.close()


def in_protocol(order: list[str]) -> list[str]:
    """Leave out what no service does: work on a prompt before it is stored and assigned."""
    begun = [
        order.index(name) if name in order else len(order) for name in ("prompt", "assignment")
    ]
    return [name for place, name in enumerate(order) if place >= max(begun) or place in begun]


def finish(store: Store) -> None:
    """Do all the work that is owed, once more and in order."""
    for name in ("prompt", "assignment", "trace 0", "trace 1"):
        STEPS[name](store)
    for name in ("judgement 0", "judgement 1", "close", "close mirrored"):
        STEPS[name](store)


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.sampled_from(sorted(STEPS)), max_size=25))
def test_any_interleaving_leaves_one_outcome_that_the_evidence_proves(
    fresh_store: Fresh, order: list[str]
) -> None:
    with fresh_store() as store:
        for name in in_protocol(order):
            STEPS[name](store)
        assert examine(store.evidence()).is_clean
        finish(store)
        (row,) = store.evidence()
        assert row.is_closed
        assert row.ended_slots == 2
        assert row.pairs <= 1
        assert len(store.pairs(after=None, limit=9)) == row.pairs
        assert examine([row]).is_clean
        assert store.owed(before=LATER, limit=9) == []
        assert store.progress().is_drained


@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.sampled_from(sorted(STEPS)), max_size=20))
def test_until_it_is_closed_a_group_is_always_owed_something(
    fresh_store: Fresh, order: list[str]
) -> None:
    with fresh_store() as store:
        STEPS["prompt"](store)
        for name in order:
            STEPS[name](store)
            owed = store.owed(before=LATER, limit=9)
            assert bool(owed) != store.progress().is_drained
