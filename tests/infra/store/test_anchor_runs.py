"""Stored runs of the anchors: which one is the level, and since when a judge is off it."""

from deltawheel.contracts.anchor_runs import AnchorRun, AnchorVerdict
from deltawheel.infra.store.store import SqlStore
from tests.contracts.test_anchor_runs import a_run
from tests.records import JUDGE, a_rubric, seconds

DIGEST = a_rubric().digest


def add(store: SqlStore, at: float, score: float) -> AnchorRun:
    """Store a run as judging does: compared with what is the level then."""
    run = a_run({"a": score}, at=at)
    if baseline := store.anchor_baseline(JUDGE, DIGEST):
        run = run.compared(baseline, limit=0.5, calibration=None)
    return store.add_anchor_run(run)


def test_runs_are_listed_newest_first_and_kept_as_they_were_stored_first(store: SqlStore) -> None:
    runs = [add(store, at, 3) for at in (0, 20, 10)]
    assert [entry.run for entry in store.anchor_runs(2)] == [runs[1], runs[2]]
    assert store.add_anchor_run(a_run({"a": 1}, at=0)) == runs[0]
    newest = store.newest_anchor_run(JUDGE, DIGEST)
    assert newest is not None
    assert newest.run == runs[1]
    assert store.newest_anchor_run("judge@2", DIGEST) is None


def test_steady_judge_has_no_drift(store: SqlStore) -> None:
    assert store.judge_drift(JUDGE, DIGEST) is None
    add(store, 0, 3)
    add(store, 10, 3.4)
    assert store.judge_drift(JUDGE, DIGEST) is None


def test_drift_lies_between_the_last_good_run_and_the_first_bad_one(store: SqlStore) -> None:
    for at, score in ((0, 3), (10, 3), (20, 4), (30, 5)):
        newest = add(store, at, score)
    drift = store.judge_drift(JUDGE, DIGEST)
    assert drift is not None
    assert drift.run == newest
    assert (drift.last_good_at, drift.first_bad_at) == (seconds(10), seconds(20))
    assert store.judge_drift(JUDGE, "another rubric") is None


def test_judge_that_comes_back_has_drifted_no_longer(store: SqlStore) -> None:
    for at, score in ((0, 3), (10, 5), (20, 3.1)):
        add(store, at, score)
    assert store.judge_drift(JUDGE, DIGEST) is None


def test_baseline_of_other_texts_ends_no_drift(store: SqlStore) -> None:
    add(store, 0, 3)
    moved = add(store, 10, 5)
    baseline = store.add_anchor_run(a_run({"b": 5}, at=20))
    steady = a_run({"b": 5}, at=30).compared(baseline, limit=0.5, calibration=None)
    assert store.add_anchor_run(steady).verdict is AnchorVerdict.STEADY
    drift = store.judge_drift(JUDGE, DIGEST)
    assert drift is not None
    assert (drift.run, drift.last_good_at) == (moved, seconds(0))
    store.accept_anchor_run(moved.run_id, by="ann", reason="new texts", at=seconds(40))
    assert store.judge_drift(JUDGE, DIGEST) is None
    assert store.anchor_baseline(JUDGE, DIGEST) == baseline


def test_accepted_run_is_the_new_level(store: SqlStore) -> None:
    add(store, 0, 3)
    moved = add(store, 10, 5)
    entry = store.accept_anchor_run(moved.run_id, by="ann", reason="new weights", at=seconds(15))
    assert entry is not None
    assert (entry.accepted_by, entry.reason, entry.accepted_at) == (
        "ann",
        "new weights",
        seconds(15),
    )
    assert store.accept_anchor_run(moved.run_id, by="bob", reason="me too", at=seconds(16)) is None
    assert store.accept_anchor_run("no\0id", by="bob", reason="", at=seconds(16)) is None
    assert store.anchor_baseline(JUDGE, DIGEST) == moved
    assert store.judge_drift(JUDGE, DIGEST) is None
    assert add(store, 20, 5).verdict is AnchorVerdict.STEADY
    assert add(store, 30, 3).verdict is AnchorVerdict.DRIFTED
    drift = store.judge_drift(JUDGE, DIGEST)
    assert drift is not None
    assert (drift.last_good_at, drift.first_bad_at) == (seconds(20), seconds(30))


def test_other_wheels_judges_drift_by_themselves(store: SqlStore, url: str) -> None:
    add(store, 0, 3)
    add(store, 10, 5)
    other = SqlStore(url, wheel="other")
    assert other.judge_drift(JUDGE, DIGEST) is None
    assert other.anchor_runs(9) == []
    other.close()
