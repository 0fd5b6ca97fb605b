"""Stored judgements: those of a jury, page by page."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from deltawheel.contracts.judgement import Judgement, Opinion
from deltawheel.infra.store.store import SqlStore
from tests.records import T0, WHEEL, a_judgement, a_prompt, a_trace, an_assignment, some_scores

OPINIONS = (
    Opinion(judge="one", judge_revision="one@1", scores=some_scores(4.0)),
    Opinion(judge="two", judge_revision="two@1", fault="down"),
)


def add_judgement(
    store: SqlStore, number: int, *, after_s: float, opinions: tuple[Opinion, ...] = OPINIONS
) -> Judgement:
    prompt = store.add_prompts([a_prompt(f"{number}+1=")])[0]
    assignment = store.add_assignments([an_assignment(prompt)])[0]
    trace = store.add_traces([a_trace(assignment)])[0]
    judged = a_judgement(trace, judged_at=T0 + timedelta(seconds=after_s))
    return store.add_judgements([judged.model_copy(update={"opinions": opinions})])[0]


def test_judgements_of_a_jury_come_newest_first_and_none_twice(store: SqlStore) -> None:
    added = [add_judgement(store, number, after_s=number // 3) for number in range(8)]
    add_judgement(store, 8, after_s=9, opinions=())
    found: list[Judgement] = []
    while page := store.jury_judgements(limit=3, before=found[-1] if found else None):
        assert len(page) <= 3
        found += page
    assert found == sorted(added, key=lambda it: (-it.judged_at.timestamp(), it.trace_id))
    assert found[0].opinions == OPINIONS


def test_judgements_before_a_time_are_left_out(store: SqlStore) -> None:
    added = [add_judgement(store, number, after_s=number) for number in range(4)]
    since = T0 + timedelta(seconds=2)
    assert store.jury_judgements(limit=9, since=since) == [added[3], added[2]]


def test_sqlite_looks_for_open_prompts_in_their_own_index(tmp_path: Path) -> None:
    """However many have been closed: of two indexes that would do, it takes the one made last."""
    asked = (
        "SELECT min(accepted_at) FROM prompts WHERE wheel = ? AND closed_at IS NULL",
        "SELECT count(*) FROM prompts JOIN traces USING (prompt_id, round) "
        "WHERE prompts.wheel = ? AND prompts.closed_at IS NULL",
    )
    path = tmp_path / "store.db"
    SqlStore(f"sqlite:///{path}", wheel=WHEEL).close()
    with closing(sqlite3.connect(path)) as connection:
        for query in asked:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", (WHEEL,)).fetchall()
            assert "ix_prompts_open" in plan[0][3]
