"""Evaluate: champion and candidate on the same fresh items, on the same server, in the same run."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.evaluation import Arm, Evaluation, ItemResult
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import seed_of
from deltawheel.pipelines.adapters import (
    evaluation_sampling,
    keep_adapter,
    load_with_patience,
    on_server,
    serve_champion,
)
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.files import write_json_lines
from deltawheel.pipelines.harness import Answer, Asking, answer_suites
from deltawheel.pipelines.items import Suite, load_suites
from deltawheel.pipelines.selection import champion_of
from deltawheel.pipelines.training import MODEL_FOLDER

__all__ = [
    "EVALUATION_FILE",
    "ITEMS_FILE",
    "Answers",
    "ask",
    "cycle_suites",
    "evaluate",
    "item_results",
]

Answers = Mapping[str, Sequence[Answer]]

EVALUATION_FILE: Final = "evaluation.json"
ITEMS_FILE: Final = "items.jsonl"


def evaluate(context: StageContext) -> Result:
    """Ask both arms every item and store each mark; the gate decides from these alone.

    Raises:
        RetryLaterError: the server was lost before every item had its answer.
    """
    suites = cycle_suites(context)
    champion = serve_champion(context, champion_of(context))
    trained = keep_adapter(context.settings, context.done(StepName.TRAIN) / MODEL_FOLDER)
    candidate = on_server(context, "candidate", trained, evaluation_sampling(context.settings))
    asked = {
        Arm.CHAMPION: ask(context, champion, suites, arm=Arm.CHAMPION.value),
        Arm.CANDIDATE: ask(context, candidate, suites, arm=Arm.CANDIDATE.value),
    }
    marks = tuple(item_results(suites, asked[Arm.CHAMPION], asked[Arm.CANDIDATE]))
    evaluation = Evaluation(
        cycle_id=context.cycle_id,
        champion=champion.model,
        candidate=candidate.model,
        seed=_seed(context),
        temperature=context.settings.evaluation.temperature,
        items=marks,
    )
    text = evaluation.model_dump_json()
    (context.folder / EVALUATION_FILE).write_text(text, encoding="utf-8")
    write_json_lines(context.folder / ITEMS_FILE, _lines(suites, asked))
    return {
        "num_items": len(marks),
        "champion": champion.model,
        "candidate": candidate.model,
        "accuracy": {
            suite.name: {
                arm.value: _accuracy(answers[suite.name]) for arm, answers in asked.items()
            }
            for suite in suites
        },
    }


def cycle_suites(context: StageContext) -> tuple[Suite, ...]:
    """Draw the cycle's items: the same for every arm and every attempt, fresh for each cycle."""
    return load_suites(context.settings.evaluation, seed=_seed(context), random=context.random)


def ask(
    context: StageContext, generator: Generator, suites: Sequence[Suite], *, arm: str
) -> dict[str, list[Answer]]:
    """Load a model into its server and have it answer every item."""
    load_with_patience(context, generator)
    num_items = sum(len(suite.items) for suite in suites)
    context.progress(f"asking {generator.model} {num_items} items")
    scratch = context.folder / "scratch"
    asking = Asking(
        models=context.models,
        generator=generator,
        arm=arm,
        seed=_seed(context),
        concurrency=context.settings.evaluation.concurrency,
        runner=context.runner,
    )
    try:
        answers = answer_suites(suites, asking, context.settings.evaluation, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    said = ", ".join(f"{suite.name} {_accuracy(answers[suite.name]):.3f}" for suite in suites)
    context.progress(f"{generator.model}: {said}")
    return answers


def item_results(
    suites: Sequence[Suite], champion: Answers, candidate: Answers
) -> Iterator[ItemResult]:
    """Pair the marks of two arms, item by item."""
    for suite in suites:
        for first, second in zip(champion[suite.name], candidate[suite.name], strict=True):
            yield ItemResult(
                suite=suite.name,
                role=suite.role,
                item_id=first.item_id,
                champion_correct=first.is_correct,
                candidate_correct=second.is_correct,
            )


def _seed(context: StageContext) -> int:
    return seed_of(f"evaluation {context.cycle_id}")


def _accuracy(answers: Sequence[Answer]) -> float:
    return sum(answer.is_correct for answer in answers) / len(answers)


def _lines(suites: Sequence[Suite], asked: Mapping[Arm, Answers]) -> Iterator[dict[str, Any]]:
    for suite in suites:
        for place, item in enumerate(suite.items):
            answers = {arm.value: answers[suite.name][place] for arm, answers in asked.items()}
            yield {
                "suite": suite.name,
                "role": suite.role.value,
                "item_id": item.item_id,
                "prompt": item.prompt,
                "target": item.target,
                **{f"{arm}_text": answer.text for arm, answer in answers.items()},
                **{f"{arm}_correct": answer.is_correct for arm, answer in answers.items()},
            }
