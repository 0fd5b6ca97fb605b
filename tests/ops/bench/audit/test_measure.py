"""A filled store is what a wheel would have written, and the audit's command runs over it."""

from pathlib import Path

import pytest

from deltawheel.contracts.audit import account
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.rubric import Rubric
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.store import SqlStore
from deltawheel.ops.bench.audit.filling import fill
from deltawheel.ops.bench.audit.measure import measure


@pytest.fixture
def filled(tmp_path: Path) -> SqlStore:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    database = Database(url)
    fill(database, wheel="bench", num_prompts=200, progress=lambda _: None)
    database.close()
    return SqlStore.open_existing(url, wheel="bench")


def test_filled_store_is_clean_down_to_its_payloads(filled: SqlStore) -> None:
    with filled.snapshot() as snapshot:
        audit = account(snapshot, rubric=Rubric(), is_deep=True)
    assert audit.findings == []
    assert (audit.prompts, audit.in_flight) == (200, 2)
    assert audit.outcomes == {
        Outcome.PAIRED: 150,
        Outcome.UNPAIRED: 40,
        Outcome.QUARANTINED: 4,
        Outcome.DEAD_LETTERED: 4,
    }
    filled.close()


def test_filled_rows_have_the_ids_of_their_contents(filled: SqlStore) -> None:
    pairs = filled.pairs(after=None, limit=9)
    assert len(pairs) == 9
    for pair in pairs:
        group = filled.group(pair.key)
        assert group is not None
        assert group.prompt.prompt_id == pair.key.prompt_id
        assert group.assignment is not None
        assert set(group.traces) == {group.assignment.trace_id(slot) for slot in (0, 1)}
        assert filled.pair(pair.pair_id) == pair
    filled.close()


def test_indexes_are_there_again(filled: SqlStore) -> None:
    assert filled.group(PromptKey("prompt_none", 0)) is None
    database = Database(str(filled._database._url))
    with database.reading() as connection:
        names = {
            name
            for (name,) in connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'index'"
            )
        }
    database.close()
    filled.close()
    assert {"ix_traces_prompt_id_round_slot", "ix_prompts_open", "ix_pair_deltas_ranked"} <= names


def test_audit_command_is_timed_over_the_store_and_a_full_one_is_refused(tmp_path: Path) -> None:
    figures = measure(tmp_path, url=None, num_prompts=300, repeat=1, progress=lambda _: None)
    assert (figures["prompts"], figures["is_clean"]) == (300, True)
    assert len(figures["audit_s"]) == 1
    assert 20 < figures["audit_peak_mb"] < 1_000
    with pytest.raises(DeltawheelError, match="holds 300 prompts of the wheel bench"):
        measure(tmp_path, url=None, num_prompts=1, repeat=1, progress=lambda _: None)
