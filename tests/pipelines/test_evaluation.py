"""Both arms answer the same fresh items, and only complete answers are marked."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.promotion import Champion
from deltawheel.infra.sandbox.grammar import Problem, is_withheld
from deltawheel.pipelines.adapters import load_with_patience
from deltawheel.pipelines.context import StageContext
from deltawheel.pipelines.evaluation import (
    EVALUATION_FILE,
    ITEMS_FILE,
    cycle_suites,
    evaluate,
    item_results,
)
from deltawheel.pipelines.files import write_json
from deltawheel.pipelines.harness import Answer
from deltawheel.pipelines.items import Item, Suite
from deltawheel.pipelines.stages import attempt_folder, final_folder, run_stage
from tests.pipelines.fakes import (
    ScriptedModels,
    StillClock,
    a_context,
    an_adapter,
    small_settings,
)
from tests.records import a_generator

ITEMS = tuple(Item.of(f"{number}?", str(number)) for number in range(2))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def a_trained_cycle(
    home: Path,
    runner: asyncio.Runner,
    models: ScriptedModels,
    *,
    cause: str = "test",
    adapter_path: Path | None = None,
) -> StageContext:
    """Return the context of a cycle whose select and train steps are done."""
    context = a_context(small_settings(home), runner, pairs=(), models=models, cause=cause)
    champion = Champion(
        model_name="deltawheel-default",
        version=None if adapter_path is None else "1",
        adapter_path=None if adapter_path is None else str(adapter_path),
    )
    selected = context.done(StepName.SELECT)
    selected.mkdir(parents=True)
    write_json(selected / "result.json", {"champion": champion.model_dump(mode="json")})
    an_adapter(context.done(StepName.TRAIN) / "model", b"candidate weights")
    return context


def solve(prompt: str) -> str:
    return f"A:{Problem.parse(prompt).answer}"


def candidate_knows_all(generator: Generator, prompt: str, seed: int) -> str:
    is_candidate = generator.name == "candidate"
    return solve(prompt) if is_candidate or Problem.parse(prompt).answer % 2 else "A:100"


def prompts_of(suites: tuple[Suite, ...]) -> set[str]:
    return {item.prompt for suite in suites for item in suite.items}


def an_answer(item: Item, *, is_correct: bool) -> Answer:
    return Answer(item_id=item.item_id, text="A:1", extracted="1", is_correct=is_correct)


def test_items_are_fresh_for_each_cycle_and_the_same_for_each_attempt(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    settings = small_settings(tmp_path)
    first, again, second = (
        cycle_suites(a_context(settings, runner, pairs=(), cause=cause))
        for cause in ("first", "first", "second")
    )
    assert first == again
    assert len(prompts_of(first) & prompts_of(second)) < 10
    assert len(prompts_of(first)) >= 230
    assert all(is_withheld(prompt) for prompt in prompts_of(first) | prompts_of(second))


def test_marks_of_both_arms_are_paired_item_by_item() -> None:
    suites = [
        Suite(name="times", role=SuiteRole.OUT_OF_DOMAIN, items=ITEMS),
        Suite(name="max-min", role=SuiteRole.GUARD, items=ITEMS[:1]),
    ]
    champion = {
        "times": [an_answer(item, is_correct=item is ITEMS[0]) for item in ITEMS],
        "max-min": [an_answer(ITEMS[0], is_correct=True)],
    }
    candidate = {
        "times": [an_answer(item, is_correct=item is ITEMS[1]) for item in ITEMS],
        "max-min": [an_answer(ITEMS[0], is_correct=True)],
    }
    rows = list(item_results(suites, champion, candidate))
    assert [(row.suite, row.role, row.item_id) for row in rows] == [
        ("times", SuiteRole.OUT_OF_DOMAIN, ITEMS[0].item_id),
        ("times", SuiteRole.OUT_OF_DOMAIN, ITEMS[1].item_id),
        ("max-min", SuiteRole.GUARD, ITEMS[0].item_id),
    ]
    marks = [(row.champion_correct, row.candidate_correct) for row in rows]
    assert marks == [(True, False), (False, True), (True, True)]


def test_arms_that_answered_a_different_number_of_items_cannot_be_paired() -> None:
    suite = Suite(name="times", role=SuiteRole.OUT_OF_DOMAIN, items=ITEMS)
    both = {"times": [an_answer(item, is_correct=True) for item in ITEMS]}
    with pytest.raises(ValueError, match="shorter"):
        list(item_results([suite], both, {"times": both["times"][:1]}))


@pytest.mark.parametrize("num_refusals", [0, 1, 5])
def test_a_server_that_is_restarting_is_waited_for(
    tmp_path: Path, runner: asyncio.Runner, num_refusals: int
) -> None:
    models = ScriptedModels(candidate_knows_all, num_refusals=num_refusals)
    said: list[str] = []
    context = a_context(small_settings(tmp_path), runner, pairs=(), models=models, said=said)
    load_with_patience(context, a_generator())
    assert models.loaded == [a_generator()]
    assert len(said) == num_refusals
    assert isinstance(context.clock, StillClock)
    assert context.clock.seconds == sum(2.0 * number for number in range(1, num_refusals + 1))


def test_a_server_that_does_not_come_back_is_tried_again_later(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    models = ScriptedModels(candidate_knows_all, num_refusals=6)
    context = a_context(small_settings(tmp_path), runner, pairs=(), models=models)
    with pytest.raises(RetryLaterError, match="is starting"):
        load_with_patience(context, a_generator())
    assert models.loaded == []


@pytest.mark.integration
def test_both_arms_answer_the_same_items_and_every_mark_is_kept(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    heard: dict[str, list[str]] = {}

    def reply(generator: Generator, prompt: str, seed: int) -> str:
        heard.setdefault(generator.model, []).append(prompt)
        return candidate_knows_all(generator, prompt, seed)

    models = ScriptedModels(reply)
    context = a_trained_cycle(tmp_path, runner, models)
    context.folder.mkdir(parents=True, exist_ok=True)
    result = evaluate(context)

    stored = (context.folder / EVALUATION_FILE).read_text(encoding="utf-8")
    evaluation = Evaluation.model_validate_json(stored)
    base, candidate = (generator.model for generator in models.loaded)
    assert base == evaluation.champion == "base"
    assert candidate == evaluation.candidate
    assert candidate.startswith("candidate-")
    assert sorted(heard[base]) == sorted(heard[candidate])
    assert set(heard[base]) == prompts_of(cycle_suites(context))
    assert len(set(models.seeds)) == len(models.seeds) == 480

    expected = {
        item.item_id: bool(int(item.target) % 2)
        for suite in cycle_suites(context)
        for item in suite.items
    }
    assert len(evaluation.items) == result["num_items"] == 240
    assert all(item.candidate_correct for item in evaluation.items)
    assert {item.item_id: item.champion_correct for item in evaluation.items} == expected
    assert result["accuracy"]["times"]["candidate"] == 1.0
    share = sum(item.champion_correct for item in of_suite(evaluation, "times")) / 60
    assert result["accuracy"]["times"]["champion"] == pytest.approx(share)

    lines = (context.folder / ITEMS_FILE).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["item_id"] for row in rows] == [item.item_id for item in evaluation.items]
    assert all(row["candidate_text"] == f"A:{row['target']}" for row in rows)
    assert sorted(path.name for path in context.folder.iterdir()) == [EVALUATION_FILE, ITEMS_FILE]


def of_suite(evaluation: Evaluation, name: str) -> list[ItemResult]:
    return [item for item in evaluation.items if item.suite == name]


@pytest.mark.integration
def test_a_promoted_champion_is_asked_from_its_adapter(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    kept = an_adapter(tmp_path / "state" / "adapters" / "kept", b"champion weights")
    models = ScriptedModels(candidate_knows_all)
    context = a_trained_cycle(tmp_path, runner, models, adapter_path=kept)
    context.folder.mkdir(parents=True, exist_ok=True)
    evaluate(context)
    champion, candidate = models.loaded
    assert champion.adapter_path == str(kept)
    assert champion.model.startswith("champion-")
    adapters = (tmp_path / "state" / "adapters").resolve()
    assert Path(candidate.adapter_path or "").parent == adapters
    assert champion.sampling == candidate.sampling
    assert champion.revision != candidate.revision


@pytest.mark.integration
@pytest.mark.parametrize("fail_after", [100, 300])
def test_a_server_lost_in_either_arm_scores_nothing(
    tmp_path: Path, runner: asyncio.Runner, fail_after: int
) -> None:
    models = ScriptedModels(candidate_knows_all, fail_after=fail_after)
    context = a_trained_cycle(tmp_path, runner, models)
    final = final_folder(context.settings, context.cycle_id, StepName.EVALUATE.value)
    own = context.within(attempt_folder(final, "one"))
    with pytest.raises(RetryLaterError, match="does not answer"):
        run_stage(StepName.EVALUATE.value, own, final)
    assert not final.exists()
    assert not own.folder.exists()

    models.fail_after = None
    again = context.within(attempt_folder(final, "two"))
    assert run_stage(StepName.EVALUATE.value, again, final)["num_items"] == 240
