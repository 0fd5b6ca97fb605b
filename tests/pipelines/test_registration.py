"""Version, warm adapter, decision row, alias: in this order, and once, whatever is killed."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.gate import GateDecision, Verdict
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.slices import SliceManifest
from deltawheel.pipelines.adapters import adapter_digest
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.evaluation import EVALUATION_FILE, ITEMS_FILE
from deltawheel.pipelines.files import write_json, write_json_lines
from deltawheel.pipelines.gate import GATE_FILE, gate, replay
from deltawheel.pipelines.selection import take_slice
from deltawheel.pipelines.stages import RESULT_FILE, attempt_folder, final_folder, run_stage
from tests.pipelines.fakes import (
    AT,
    Journal,
    KilledError,
    MemoryRegistry,
    ScriptedModels,
    Shelf,
    a_context,
    an_adapter,
    sandbox_pairs,
    small_settings,
)
from tests.records import a_generator, a_pool_event

BASE = Champion(model_name="deltawheel-default")
EFFECTS = ["run", "version", "load", "decision row", "alias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A cycle that waits for its register step, and all that this step may change."""

    context: StageContext
    shelf: Shelf
    registry: MemoryRegistry
    models: ScriptedModels
    journal: Journal

    def register(self, token: str = "one") -> Result:
        final = final_folder(self.context.settings, self.context.cycle_id, "register")
        return run_stage("register", self.context.within(attempt_folder(final, token)), final)

    @property
    def cycle_id(self) -> str:
        return self.context.cycle_id


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def a_world(
    home: Path,
    runner: asyncio.Runner,
    *,
    verdict: Verdict = Verdict.PROMOTE,
    champion: Champion = BASE,
    settings: Settings | None = None,
) -> World:
    """Carry a cycle through select and gate; train and evaluate are only given their files."""
    settings = settings or small_settings(home)
    journal = Journal()
    shelf = Shelf(sandbox_pairs(8, settings.make_rubric()), journal=journal)
    registry = MemoryRegistry(standing=champion, journal=journal)
    models = ScriptedModels(lambda generator, prompt, seed: "", journal=journal)
    context = a_context(settings, runner, pairs=(), store=shelf, models=models, registry=registry)
    for name in (StepName.SELECT, StepName.TRAIN, StepName.EVALUATE, StepName.GATE):
        context.done(name).mkdir(parents=True)
    take_slice(context, context.done(StepName.SELECT))
    selected = {"champion": champion.model_dump(mode="json")}
    write_json(context.done(StepName.SELECT) / RESULT_FILE, selected)
    trained = context.done(StepName.TRAIN)
    an_adapter(trained / "model", b"candidate weights")
    write_json_lines(trained / "training_log.jsonl", [{"loss": 0.5}])
    write_json(trained / RESULT_FILE, {"final_loss": 0.5, "final_margin": None, "num_too_long": 1})
    evaluated = context.done(StepName.EVALUATE)
    marks = an_evaluation(context.cycle_id, verdict).model_dump_json()
    (evaluated / EVALUATION_FILE).write_text(marks, encoding="utf-8")
    write_json_lines(evaluated / ITEMS_FILE, [{"item_id": "0"}])
    gate(context.within(context.done(StepName.GATE)))
    return World(context=context, shelf=shelf, registry=registry, models=models, journal=journal)


def an_evaluation(cycle_id: str, verdict: Verdict) -> Evaluation:
    """Marks on one out-of-domain suite from which the gate comes to this verdict."""
    num_items, num_wins = {
        Verdict.PROMOTE: (100, 40),
        Verdict.REJECT: (1_000, 0),
        Verdict.INCONCLUSIVE: (50, 1),
    }[verdict]
    items = tuple(
        ItemResult(
            suite="times",
            role=SuiteRole.OUT_OF_DOMAIN,
            item_id=str(number),
            champion_correct=False,
            candidate_correct=number < num_wins,
        )
        for number in range(num_items)
    )
    return Evaluation(
        cycle_id=cycle_id, champion="base", candidate="c", seed=1, temperature=0.0, items=items
    )


def a_champion(version: str = "3", lineage_depth: int = 2) -> Champion:
    return Champion(model_name="deltawheel-default", version=version, lineage_depth=lineage_depth)


def test_a_promotion_makes_its_effects_in_order_and_the_alias_last(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    result = world.register()
    assert world.journal.entries == EFFECTS
    (promotion,) = world.shelf.promoted
    assert world.registry.alias == promotion.version == result["version"] == "1"
    assert world.models.loaded == [promotion.generator]
    assert result["replaces"] is promotion.replaces is None
    assert (promotion.cycle_id, promotion.promoted_at) == (world.cycle_id, AT)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("die_after", EFFECTS)
@pytest.mark.parametrize("champion", [BASE, a_champion()], ids=["base", "version-3"])
def test_killed_after_any_effect_a_second_attempt_ends_the_same(
    tmp_path: Path, runner: asyncio.Runner, die_after: str, champion: Champion
) -> None:
    unharmed = a_world(tmp_path / "unharmed", runner, champion=champion)
    expected = unharmed.register()

    world = a_world(tmp_path / "killed", runner, champion=champion)
    world.journal.die_after = die_after
    with pytest.raises(KilledError):
        world.register("one")
    world.journal.die_after = None
    assert world.register("two") == expected
    assert list(world.registry.made.values()) == [expected["version"]]
    assert [row.version for row in world.shelf.promoted] == [expected["version"]]
    assert len(world.registry.runs) == world.registry.num_moves == 1
    assert world.registry.alias == expected["version"]
    firsts = list(dict.fromkeys(world.journal.entries))
    assert firsts == EFFECTS


def test_killed_before_the_decision_the_old_champion_still_stands(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner, champion=a_champion())
    world.journal.die_after = "load"
    with pytest.raises(KilledError):
        world.register()
    assert world.registry.alias == "3"
    assert world.shelf.promoted == []


def test_an_earlier_attempts_decision_stands_though_the_pool_has_changed(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    world.journal.die_after = "decision row"
    with pytest.raises(KilledError):
        world.register("one")
    (decided,) = world.shelf.promoted
    world.journal.die_after = None
    world.shelf.log = [a_pool_event(a_generator("newcomer", capability=9.0))]
    world.register("two")
    assert world.shelf.promoted == [decided]


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.INCONCLUSIVE])
def test_a_candidate_that_is_not_promoted_leaves_a_run_and_nothing_else(
    tmp_path: Path, runner: asyncio.Runner, verdict: Verdict
) -> None:
    world = a_world(tmp_path, runner, verdict=verdict, champion=a_champion())
    assert world.register() == {"run_id": "run-1", "verdict": verdict.value}
    assert world.journal.entries == ["run"]
    assert world.registry.alias == "3"
    assert world.shelf.promoted == []
    assert world.models.loaded == []
    recorded = world.registry.runs[world.cycle_id]
    assert recorded.decision.verdict is verdict
    assert not any(name.startswith("model/") for name in recorded.files)


def test_an_alias_moved_by_hand_meanwhile_stops_the_cycle(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner, champion=a_champion())
    world.registry.alias = "2"
    with pytest.raises(CycleError, match="moved by hand"):
        world.register()
    assert world.registry.alias == "2"


def test_a_server_that_is_away_keeps_the_alias_where_it_is(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    world.models.num_refusals = 6
    with pytest.raises(RetryLaterError, match="is starting"):
        world.register("one")
    assert world.journal.entries == ["run", "version"]
    assert world.register("two")["version"] == "1"
    assert world.journal.entries == EFFECTS


@pytest.mark.parametrize(
    "held",
    [
        {"token": "taken over"},
        {"token": None},
        {"lease_until": None},
        {"lease_until": AT + timedelta(seconds=1)},
    ],
)
def test_an_attempt_that_may_lose_its_step_changes_nothing_in_the_registry(
    tmp_path: Path, runner: asyncio.Runner, held: dict[str, object]
) -> None:
    world = a_world(tmp_path, runner)
    cycle = world.context.cycle()
    steps = tuple(step.model_copy(update=held) for step in cycle.steps)
    world.shelf.cycles[world.cycle_id] = cycle.model_copy(update={"steps": steps})
    with pytest.raises(RetryLaterError, match="no longer holds the step register"):
        world.register()
    assert world.registry.made == {}
    assert world.registry.alias is None

    world.shelf.cycles[world.cycle_id] = cycle
    assert world.register()["version"] == "1"


def test_a_step_lost_while_the_adapter_warms_up_does_not_move_the_alias(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    cycle = world.context.cycle()
    lost = tuple(step.model_copy(update={"token": "other"}) for step in cycle.steps)

    class SlowModels(ScriptedModels):
        async def load(self, generator: Generator) -> None:
            world.shelf.cycles[world.cycle_id] = cycle.model_copy(update={"steps": lost})

    slow = SlowModels(lambda generator, prompt, seed: "")
    overtaken = dataclasses.replace(
        world, context=world.context.within(world.context.folder, models=slow)
    )
    with pytest.raises(RetryLaterError, match="no longer holds the step register"):
        overtaken.register()
    assert world.registry.alias is None


def test_the_run_keeps_everything_that_the_verdict_hangs_on(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    world.register()
    recorded = world.registry.runs[world.cycle_id]
    assert set(recorded.files) == {
        "gate/evaluation.json",
        "gate/gate.json",
        "items.jsonl",
        "model/adapter_config.json",
        "model/adapter_model.safetensors",
        "model/gate/evaluation.json",
        "model/gate/gate.json",
        "slice.json",
        "training_log.jsonl",
    }
    assert recorded.files["model/adapter_model.safetensors"] == b"candidate weights"
    manifest = SliceManifest.model_validate_json(recorded.files["slice.json"])
    assert recorded.parameters["slice_id"] == manifest.slice_id
    assert recorded.parameters["selector"] == "top-delta"
    assert recorded.parameters["started_from"] == "base"
    assert recorded.parameters["loss_type"] == "sigmoid_norm"
    assert recorded.parameters["learning_rate"] == "0.0005"
    assert recorded.parameters["passes"] == "1"
    assert recorded.metrics["slice/num_pairs"] == 4
    assert recorded.metrics["training/num_too_long"] == 1
    assert "training/final_margin" not in recorded.metrics
    assert recorded.metrics["times/difference"] == pytest.approx(0.4)
    assert recorded.metrics["all-out-of-domain/lower"] > 0

    travelled = tmp_path / "travelled"
    travelled.mkdir()
    for name in (GATE_FILE, EVALUATION_FILE):
        (travelled / name).write_bytes(recorded.files[f"model/gate/{name}"])
    decided = GateDecision.model_validate_json(recorded.files["gate/gate.json"])
    assert replay(travelled) == decided


def test_nothing_of_the_artifacts_stays_in_the_steps_folder(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    world.register()
    assert [path.name for path in world.context.done(StepName.REGISTER).iterdir()] == [RESULT_FILE]


def test_the_promoted_generator_is_the_best_of_the_pool_plus_the_measured_gain(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner, champion=a_champion(lineage_depth=2))
    drained = a_generator("drained", capability=7.0)
    world.shelf.log = [
        a_pool_event(a_generator("weak", capability=0.5)),
        a_pool_event(a_generator("strong", capability=2.0)),
        a_pool_event(drained),
        PoolEvent(
            kind=PoolEventKind.DRAINED, generator=drained, reason="gone", at=AT, cause="operator"
        ),
    ]
    world.register()
    (promotion,) = world.shelf.promoted
    generator = promotion.generator
    assert generator.capability == pytest.approx(2.4)
    assert generator.lineage_depth == 3
    assert generator.name == "deltawheel-default-v4"
    assert promotion.replaces == "3"
    digest = adapter_digest(world.context.done(StepName.TRAIN) / "model")
    assert generator.revision == digest
    assert generator.model == f"{generator.name}-{digest.removeprefix('sha256:')[:12]}"
    assert generator.endpoint == "server:local"
    assert generator.sampling == world.context.settings.training.sampling
    assert world.registry.tags["4"] == {
        "deltawheel.adapter_digest": digest,
        "deltawheel.lineage_depth": "3",
    }


def test_a_model_that_is_in_the_pool_already_does_not_raise_itself(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    """A register step that is repeated after adoption must not count its own first promotion."""
    world = a_world(tmp_path, runner)
    world.shelf.log = [a_pool_event(a_generator("deltawheel-default-v1", capability=5.0))]
    world.register()
    assert world.shelf.promoted[0].generator.capability == pytest.approx(0.4)


def test_the_served_adapter_outlives_the_cycles_folder(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    world = a_world(tmp_path, runner)
    world.register()
    served = Path(world.shelf.promoted[0].generator.adapter_path or "")
    assert served.parent == (tmp_path / "state" / "adapters").resolve()
    assert (served / "adapter_model.safetensors").read_bytes() == b"candidate weights"


@pytest.mark.parametrize("length", [1, 52, 53, 64])
def test_a_long_model_name_still_makes_a_valid_generator_name(
    tmp_path: Path, runner: asyncio.Runner, length: int
) -> None:
    settings = small_settings(tmp_path, registry={"model_name": "m" * length})
    champion = Champion(model_name="m" * length, version="99999998")
    world = a_world(tmp_path, runner, champion=champion, settings=settings)
    world.register()
    (promotion,) = world.shelf.promoted
    assert promotion.model_name == "m" * length
    assert promotion.generator.name == f"{'m' * min(length, 52)}-v99999999"
    assert len(promotion.generator.name) <= 64
    type(promotion.generator).model_validate(promotion.generator.model_dump())
