"""Calibrations: the newest of one judge under one rubric counts."""

from deltawheel.contracts.calibration import Calibration
from deltawheel.infra.store.store import SqlStore
from tests.records import JUDGE, seconds


def a_calibration(
    at: float = 0, *, revision: str = JUDGE, rubric: str = "rubric-1", variance: float = 0.04
) -> Calibration:
    return Calibration(
        judge="judge",
        judge_revision=revision,
        rubric_digest=rubric,
        variances={"factuality": variance},
        num_texts=7,
        num_judgements=21,
        measured_at=seconds(at),
    )


def test_newest_of_a_judge_under_a_rubric_counts(store: SqlStore) -> None:
    newest = a_calibration(20)
    for each in (a_calibration(10), newest, a_calibration(5)):
        assert store.add_calibration(each) == each
    store.add_calibration(a_calibration(30, revision="judge@2"))
    store.add_calibration(a_calibration(30, rubric="rubric-2"))
    assert store.newest_calibration(JUDGE, "rubric-1") == newest
    assert store.newest_calibration(JUDGE, "rubric-3") is None


def test_first_writer_of_a_calibration_wins(store: SqlStore) -> None:
    first = store.add_calibration(a_calibration())
    assert store.add_calibration(a_calibration(variance=1.0)) == first


def test_other_wheels_judges_are_their_own(store: SqlStore, url: str) -> None:
    store.add_calibration(a_calibration())
    other = SqlStore(url, wheel="other")
    assert other.newest_calibration(JUDGE, "rubric-1") is None
    other.close()
