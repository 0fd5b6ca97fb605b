"""New pairs carry the standard error that test–retest has found, once it is known."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.infra.store.store import SqlStore
from deltawheel.services.curation.calibrations import NewestCalibrations
from deltawheel.services.curation.pairing import form_pairs
from tests.infra.store.test_calibrations import a_calibration
from tests.records import JUDGE, WHEEL, a_rubric, seconds
from tests.services.fakes import FakeClock, add_judged, held

RUBRIC = a_rubric()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield store


def test_pair_carries_the_calibrated_variance_and_names_its_source(store: SqlStore) -> None:
    calibration = store.add_calibration(a_calibration(rubric=RUBRIC.digest, variance=0.04))
    group = held(store, add_judged(store))
    newest = NewestCalibrations(store, rubric_digest=RUBRIC.digest, clock=FakeClock())
    [pair] = form_pairs(group, RUBRIC, at=seconds(9), calibrated=newest.of)
    assert pair.calibration_id == calibration.calibration_id
    assert pair.deltas["factuality"].variance == pytest.approx(0.08)
    [plain] = form_pairs(group, RUBRIC, at=seconds(9))
    assert (plain.calibration_id, plain.deltas["factuality"].variance) == (None, 0)
    assert plain.pair_id == pair.pair_id


def test_new_calibration_is_found_within_a_minute_and_not_looked_for_before(
    store: SqlStore,
) -> None:
    clock = FakeClock()
    newest = NewestCalibrations(store, rubric_digest=RUBRIC.digest, clock=clock)
    assert newest.of(JUDGE) is None
    first = store.add_calibration(a_calibration(rubric=RUBRIC.digest))
    assert newest.of(JUDGE) is None
    clock.move(60)
    assert newest.of(JUDGE) == first
