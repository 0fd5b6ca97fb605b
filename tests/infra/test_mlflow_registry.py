"""The registry on a real MLflow: SQLite and a folder, as a wheel on one machine has them."""

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.gate import GateDecision, GateThresholds, Verdict
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.settings import RegistrySettings, Settings
from deltawheel.contracts.slices import SliceManifest, SliceSpec
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.mlflow_registry import (
    CHAMPION_ALIAS,
    CYCLE_TAG,
    DIGEST_TAG,
    LINEAGE_TAG,
    MODEL_FOLDER,
    PREVIOUS_ALIAS,
    MlflowRegistry,
)
from tests.records import JUDGE, T0, a_cycle, a_rubric
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

ADAPTER = "adapter_model.safetensors"
WEIGHTS = b"weights of a test"


def a_manifest() -> SliceManifest:
    return SliceManifest(
        spec=SliceSpec(
            share=Decimal("0.3"),
            rubric_digest=a_rubric().digest,
            judge_revision=JUDGE,
            paired_before=T0,
        ),
        num_candidates=10,
        num_pairs=3,
        mean_delta=2.5,
        mean_delta_of_candidates=1.5,
        smallest_delta=2.0,
        pair_ids_digest=digest_of("pairs"),
        file_digest=digest_of("file"),
    )


def a_decision(cycle_id: str, *, verdict: Verdict = Verdict.PROMOTE) -> GateDecision:
    return GateDecision(
        cycle_id=cycle_id,
        evaluation_digest=digest_of("evaluation"),
        thresholds=GateThresholds(
            alpha=0.025, min_gain=0.02, max_harm=0.02, max_suite_harm=0.05, num_resamples=200
        ),
        comparisons=(),
        smallest_visible_gain=0.03,
        verdict=verdict,
        reasons=("it gains", "it harms nothing"),
    )


@dataclass
class World:
    """A wheel's registry in a folder, and cycles that write it."""

    home: Path
    settings: Settings
    registry: MlflowRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = MlflowRegistry(self.settings)

    @property
    def client(self) -> Any:
        """MLflow's own client, to look from outside."""
        with self.registry._answering():
            return self.registry._client

    def artifacts(self, *, weights: bytes | None = WEIGHTS) -> Path:
        folder = self.home / "artifacts-of-a-cycle"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / MODEL_FOLDER).mkdir(parents=True)
        (folder / "slice.json").write_text("{}")
        (folder / MODEL_FOLDER / "adapter_config.json").write_text("{}")
        if weights is not None:
            (folder / MODEL_FOLDER / ADAPTER).write_bytes(weights)
        return folder

    def record(self, cause: str = "first", *, weights: bytes | None = WEIGHTS) -> str:
        cycle_id = a_cycle(cause).cycle_id
        return self.registry.record_run(
            cycle_id,
            parameters={"loss_type": "sigmoid_norm", "seed": "0"},
            metrics={"slice/num_pairs": 3.0, "times/lower": -0.25},
            manifest=a_manifest(),
            decision=a_decision(cycle_id),
            artifacts=self.artifacts(weights=weights),
        )

    def register(self, cause: str = "first", *, weights: bytes | None = WEIGHTS) -> str:
        """Record a cycle and make its version."""
        run_id = self.record(cause, weights=weights)
        tags = {DIGEST_TAG: digest_of(weights or b""), LINEAGE_TAG: "1"}
        return self.registry.add_version(a_cycle(cause).cycle_id, run_id, tags=tags)

    def champion(self) -> Champion:
        return self.registry.champion(self.home / "downloads")

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name(self.settings.registered_model)
        return list(self.client.search_runs([experiment.experiment_id]))

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(self.settings.registered_model).aliases
        return {name: str(version) for name, version in found.items()}


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that MLflow makes at first, made once: it takes seconds."""
    settings = Settings(home=tmp_path_factory.mktemp("new"))
    MlflowRegistry(settings).champion(settings.home)
    return settings.registry_folder / "mlflow.db"


@pytest.fixture
def world(tmp_path: Path, new_database: Path) -> World:
    settings = Settings(home=tmp_path)
    settings.registry_folder.mkdir()
    shutil.copyfile(new_database, settings.registry_folder / "mlflow.db")
    return World(home=tmp_path, settings=settings)


def test_no_alias_means_the_base(world: World) -> None:
    assert world.champion() == Champion(model_name="deltawheel-default")
    world.register()
    assert world.champion().version is None


def test_a_run_holds_all_that_the_cycle_knows(world: World) -> None:
    run_id = world.record()
    [run] = world.runs()
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == a_cycle().cycle_id
    assert run.data.params == {"loss_type": "sigmoid_norm", "seed": "0"}
    assert run.data.metrics == {"slice/num_pairs": 3.0, "times/lower": -0.25}
    assert run.data.tags[CYCLE_TAG] == a_cycle().cycle_id
    assert run.data.tags["deltawheel.verdict"] == "promote"
    assert run.data.tags["deltawheel.reasons"] == "it gains; it harms nothing"
    assert run.data.tags["deltawheel.evaluation_digest"] == digest_of("evaluation")
    [used] = run.inputs.dataset_inputs
    assert used.dataset.name == a_manifest().slice_id
    assert SliceSpec.model_validate_json(used.dataset.source) == a_manifest().spec
    kept = world.settings.registry_folder / "artifacts" / run_id / "artifacts"
    assert (kept / MODEL_FOLDER / ADAPTER).read_bytes() == WEIGHTS
    assert (kept / "slice.json").is_file()


def test_a_cycle_recorded_twice_is_one_run(world: World) -> None:
    assert world.record() == world.record()
    assert len(world.runs()) == 1


def test_every_cycle_has_a_run_of_its_own(world: World) -> None:
    assert world.record("first") != world.record("second")
    assert len(world.runs()) == 2


def test_an_attempt_that_ended_after_the_create_is_finished(world: World) -> None:
    world.record("another")
    experiment = world.client.get_experiment_by_name(world.settings.registered_model)
    begun = world.client.create_run(
        experiment.experiment_id, tags={CYCLE_TAG: a_cycle("first").cycle_id}
    )
    assert world.record("first") == begun.info.run_id
    finished = world.client.get_run(begun.info.run_id)
    assert finished.info.status == "FINISHED"
    assert finished.data.params["seed"] == "0"
    assert len(world.runs()) == 2


def test_an_attempt_that_broke_off_at_the_artifacts_is_finished(world: World) -> None:
    in_the_way = world.settings.registry_folder / "artifacts"
    in_the_way.write_text("no folder can be made here")
    with pytest.raises(OSError, match="artifacts"):
        world.record()
    in_the_way.unlink()
    [begun] = world.runs()
    assert begun.info.status == "RUNNING"
    assert begun.data.metrics
    assert world.record() == begun.info.run_id
    [finished] = world.runs()
    assert finished.info.status == "FINISHED"
    assert len(finished.inputs.dataset_inputs) == 1
    history = world.client.get_metric_history(finished.info.run_id, "slice/num_pairs")
    assert [point.value for point in history] == [3.0]


def test_a_version_is_made_once_per_run(world: World) -> None:
    assert [world.register("first"), world.register("first"), world.register("second")] == [
        "1",
        "1",
        "2",
    ]
    assert len(world.registry.versions()) == 2


def test_versions_are_listed_oldest_first_with_what_made_them(world: World) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(11):
        world.register(f"cycle {number}")
    world.registry.move_champion("2", replaces=None)
    world.registry.move_champion("10", replaces="2")
    listed = world.registry.versions()
    assert [row.version for row in listed] == [str(number) for number in range(1, 12)]
    assert {row.version: row.aliases for row in listed if row.aliases} == {
        "2": (PREVIOUS_ALIAS,),
        "10": (CHAMPION_ALIAS,),
    }
    assert [row.cycle_id for row in listed] == [
        a_cycle(f"cycle {number}").cycle_id for number in range(11)
    ]
    assert {row.run_id for row in listed} == {run.info.run_id for run in world.runs()}
    for row in listed:
        assert row.registered_at.utcoffset() == timedelta(0)
        assert before <= row.registered_at <= datetime.now(UTC) + timedelta(seconds=1)


def test_a_version_made_by_hand_is_listed_without_a_cycle(world: World) -> None:
    world.register()
    name = world.settings.registered_model
    world.client.create_model_version(name, world.artifacts().as_uri())
    *_, last = world.registry.versions()
    assert (last.version, last.cycle_id, last.run_id) == ("2", None, None)


def test_a_registry_without_a_model_has_no_versions(world: World) -> None:
    assert world.registry.versions() == []


def test_asking_for_versions_makes_no_registry(tmp_path: Path) -> None:
    assert MlflowRegistry(Settings(home=tmp_path)).versions() == []
    assert list(tmp_path.iterdir()) == []


def test_the_first_champion_replaces_the_base(world: World) -> None:
    version = world.register()
    world.registry.move_champion(version, replaces=None)
    assert world.aliases() == {CHAMPION_ALIAS: "1"}


def test_the_next_champion_leaves_the_last_one_as_previous(world: World) -> None:
    for cause in ("first", "second", "third"):
        world.register(cause)
    world.registry.move_champion("1", replaces=None)
    world.registry.move_champion("2", replaces="1")
    assert world.aliases() == {CHAMPION_ALIAS: "2", PREVIOUS_ALIAS: "1"}
    world.registry.move_champion("3", replaces="2")
    assert world.aliases() == {CHAMPION_ALIAS: "3", PREVIOUS_ALIAS: "2"}


def test_moving_to_whom_the_alias_names_already_changes_nothing(world: World) -> None:
    for cause in ("first", "second"):
        world.register(cause)
    world.registry.move_champion("1", replaces=None)
    world.registry.move_champion("2", replaces="1")
    for replaces in ("1", "2", None):
        world.registry.move_champion("2", replaces=replaces)
    assert world.aliases() == {CHAMPION_ALIAS: "2", PREVIOUS_ALIAS: "1"}


@pytest.mark.parametrize(
    ("by_hand", "replaces", "sentence"),
    [
        ("2", None, r"names version 2, but .* with the base \(no alias\): it was moved by hand"),
        ("2", "1", "names version 2, but .* with version 1: it was moved by hand"),
        (None, "1", r"names the base \(no alias\), but .* with version 1: it was moved by hand"),
    ],
)
def test_a_champion_moved_by_hand_stays_where_it_is(
    world: World, by_hand: str | None, replaces: str | None, sentence: str
) -> None:
    for cause in ("first", "second", "third"):
        world.register(cause)
    if by_hand is not None:
        name = world.settings.registered_model
        world.client.set_registered_model_alias(name, CHAMPION_ALIAS, by_hand)
    held = world.aliases()
    with pytest.raises(CycleError, match=sentence):
        world.registry.move_champion("3", replaces=replaces)
    assert world.aliases() == held


def test_a_champion_comes_with_its_adapter(world: World) -> None:
    world.register("first", weights=b"older")
    world.register("second")
    world.registry.move_champion("2", replaces=None)
    champion = world.champion()
    assert champion.version == "2"
    assert champion.adapter_digest == digest_of(WEIGHTS)
    assert champion.lineage_depth == 1
    folder = Path(champion.adapter_path or "")
    assert folder.is_relative_to(world.home / "downloads")
    assert (folder / ADAPTER).read_bytes() == WEIGHTS
    assert (folder / "adapter_config.json").is_file()
    assert world.champion() == champion, "a second download is as the first"


def test_a_champion_whose_file_was_changed_is_refused(world: World) -> None:
    world.registry.move_champion(world.register(), replaces=None)
    [kept] = world.settings.registry_folder.rglob(ADAPTER)
    kept.write_bytes(b"tampered")
    with pytest.raises(CycleError, match=r"version 1 .* was changed or damaged") as caught:
        world.champion()
    assert digest_of(WEIGHTS) in str(caught.value)
    assert digest_of(b"tampered") in str(caught.value)


def test_a_champion_without_an_adapter_is_refused(world: World) -> None:
    world.registry.move_champion(world.register(weights=None), replaces=None)
    with pytest.raises(CycleError, match=f"version 1 of deltawheel-default holds no {ADAPTER}"):
        world.champion()


def test_a_champion_whose_files_are_gone_is_refused(world: World) -> None:
    world.registry.move_champion(world.register(), replaces=None)
    shutil.rmtree(world.settings.registry_folder / "artifacts")
    with pytest.raises(CycleError, match="failures occurred while downloading"):
        world.champion()


def test_a_champion_that_was_made_by_hand_is_taken_as_it_is(world: World) -> None:
    world.register()
    name = world.settings.registered_model
    source = (world.artifacts(weights=b"by hand") / MODEL_FOLDER).as_uri()
    made = world.client.create_model_version(name, source)
    world.client.set_registered_model_alias(name, CHAMPION_ALIAS, made.version)
    champion = world.champion()
    assert (champion.version, champion.lineage_depth) == ("2", 0)
    assert champion.adapter_digest == digest_of(b"by hand")


def test_wheels_that_share_a_registry_do_not_meet(world: World) -> None:
    world.registry.move_champion(world.register(), replaces=None)
    shared = RegistrySettings(uri=world.settings.registry_uri)
    other = World(world.home, Settings(home=world.home, wheel="other", registry=shared))
    assert other.registry.versions() == []
    assert other.champion() == Champion(model_name="deltawheel-other")
    assert other.register("first") == "1"
    assert len(world.runs()) == len(other.runs()) == 1


def test_a_registry_that_does_not_answer_is_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = find_free_port()
    uri = f"http://u:secret@127.0.0.1:{port}"
    registry = MlflowRegistry(Settings(home=tmp_path, registry=RegistrySettings(uri=uri)))
    for ask in (registry.versions, lambda: registry.champion(tmp_path)):
        with pytest.raises(RetryLaterError, match="MLflow at http://u") as caught:
            ask()
        assert str(port) in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_damaged_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.registry_folder.mkdir(parents=True)
    database = settings.registry_folder / "mlflow.db"
    database.write_bytes(b"no database at all" * 100)
    registry = MlflowRegistry(settings)
    for ask in (registry.versions, lambda: registry.champion(tmp_path)):
        with pytest.raises(CycleError, match=r"MLflow at sqlite:.*mlflow\.db.*not a database"):
            ask()
    assert database.read_bytes() == b"no database at all" * 100


def test_mlflow_reports_nothing_to_its_makers(tmp_path: Path, new_database: Path) -> None:
    (tmp_path / "registry").mkdir()
    shutil.copyfile(new_database, tmp_path / "registry" / "mlflow.db")
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from deltawheel.contracts.settings import Settings
        from deltawheel.infra.mlflow_registry import MlflowRegistry
        assert MlflowRegistry(Settings(home=Path(sys.argv[1]))).versions() == []
        from mlflow.telemetry import get_telemetry_client
        print("reports by", get_telemetry_client())
        """
    )
    # MLflow is silent by itself where it thinks that it is being tested.
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        env={name: os.environ[name] for name in kept if name in os.environ},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "reports by None\n"), done.stderr


def test_registry_whose_making_was_killed_is_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path, Settings(home=tmp_path))
    program = (
        "from pathlib import Path\n"
        "from deltawheel.contracts.settings import Settings\n"
        "from deltawheel.infra.mlflow_registry import MlflowRegistry\n"
        f"home = Path({str(tmp_path)!r})\n"
        "MlflowRegistry(Settings(home=home)).champion(home / 'champion')\n"
    )
    folder = world.settings.registry_folder
    with subprocess.Popen([sys.executable, "-c", program]) as making:

        def has_begun() -> bool:
            return any(file.stat().st_size for file in folder.glob("*.part"))

        wait_for(has_begun, timeout_s=60, what="tables are made")
        making.kill()
    assert not (folder / "mlflow.db").exists(), "it was killed in the middle"
    assert world.registry.champion(tmp_path / "champion").version is None
    assert world.registry.versions() == []
