"""lm-eval on our own suites: it builds requests, filters answers and scores them; we do the asking.

Its own API models send one constant `seed` with every request, lose the run's adapters when a
server restarts, and answer for a broken reply with an empty text. So the model registered here asks
through the `ChatModel` port: a seed for every (item, repeat, arm), forgotten adapters loaded again,
and a lost server as `RetryLaterError`, which ends the run instead of scoring silence as wrong.
Source: lm_eval/models/api_models.py of 0.4.13.
"""

import asyncio
import copy
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

from deltawheel.contracts.errors import CycleError, InvalidRecordError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import seed_of
from deltawheel.contracts.ports import ChatModel
from deltawheel.contracts.prompt import Message
from deltawheel.contracts.settings import EvaluationSettings
from deltawheel.pipelines.items import Suite

__all__ = ["MODEL_NAME", "Answer", "Asking", "answer_suites"]

MODEL_NAME: Final = "deltawheel-chat"
_FILTER: Final = "answer"
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one arm answered to one item."""

    item_id: str
    text: str
    extracted: str
    is_correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Whom to ask and how."""

    models: ChatModel
    generator: Generator
    arm: str
    seed: int
    concurrency: int
    runner: asyncio.Runner

    def seed_for(self, prompt: str, repeat: int) -> int:
        """Return the seed of one request.

        The arm is part of it: with the same seed in both arms, champion against itself would be
        identical text, and an A/A test would prove nothing.
        """
        return seed_of(f"{self.seed} {self.arm} {repeat} {prompt}")

    def answers(self, conversations: Sequence[str]) -> list[str]:
        """Ask all of them, as JSON lists of messages, and return the texts in the same order.

        Raises:
            RetryLaterError: the server was lost; what it did answer is forgotten.
            CycleError: the server refuses a request and always will.
        """
        return self.runner.run(self._ask_all(conversations))

    async def _ask_all(self, conversations: Sequence[str]) -> list[str]:
        places = asyncio.Semaphore(self.concurrency)
        asked: Counter[str] = Counter()
        tasks = []
        for conversation in conversations:
            seed = self.seed_for(conversation, asked[conversation])
            asked[conversation] += 1
            tasks.append(asyncio.create_task(self._ask(conversation, seed, places)))
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, conversation: str, seed: int, places: asyncio.Semaphore) -> str:
        messages = [Message.model_validate(message) for message in json.loads(conversation)]
        async with places:
            try:
                completion = await self.models.complete(self.generator, messages, seed=seed)
            except InvalidRecordError as error:
                raise CycleError(
                    f"{self.generator.model} refuses an evaluation item: {error}"
                ) from error
        return f"{completion.reasoning}{completion.answer}"


def answer_suites(
    suites: Sequence[Suite], asking: Asking, settings: EvaluationSettings, scratch: Path
) -> dict[str, list[Answer]]:
    """Have one arm answer every item, scored by lm-eval; by suite, in the items' order.

    `scratch` takes the items' files and the caches of `datasets`; delete it afterwards.

    Raises:
        RetryLaterError: the server was lost.
        CycleError: an item is missing in what lm-eval returned.
    """
    with _quiet_and_offline():
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        results = simple_evaluate(
            model=_chat_model_class()(asking),
            tasks=[_task(suite, settings, scratch) for suite in suites],
            task_manager=TaskManager(include_defaults=False),
            apply_chat_template=True,
            bootstrap_iters=0,
            log_samples=True,
        )
    return {suite.name: _answers(suite, results["samples"][suite.name]) for suite in suites}


def _task(suite: Suite, settings: EvaluationSettings, scratch: Path) -> dict[str, Any]:
    import pyarrow
    from pyarrow import parquet

    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / f"{suite.name}.parquet"
    rows = [
        {"item_id": item.item_id, "prompt": item.prompt, "target": item.target}
        for item in suite.items
    ]
    # Not JSON lines: there datasets reads "2020-01-31" as a time and writes it back otherwise.
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("item_id", "prompt", "target")])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), file)
    task: dict[str, Any] = copy.deepcopy(_template())
    task["task"] = suite.name
    task["dataset_kwargs"] = {
        "data_files": {"test": str(file)},
        "cache_dir": str(scratch / "datasets"),
    }
    task["generation_kwargs"]["max_gen_toks"] = settings.max_tokens
    task["generation_kwargs"]["temperature"] = settings.temperature
    task["filter_list"][0]["filter"][0]["regex_pattern"] = settings.answer_pattern
    return task


@cache
def _template() -> dict[str, Any]:
    text = files("deltawheel.pipelines").joinpath("tasks/generate_until.yaml").read_text("utf-8")
    template: dict[str, Any] = yaml.safe_load(text)
    return template


def _answers(suite: Suite, samples: Sequence[Mapping[str, Any]]) -> list[Answer]:
    by_id = {
        sample["doc"]["item_id"]: Answer(
            item_id=sample["doc"]["item_id"],
            text=sample["resps"][0][0],
            extracted=str(sample["filtered_resps"][0]),
            is_correct=bool(sample["exact_match"]),
        )
        for sample in samples
        if sample["filter"] == _FILTER
    }
    if missing := [item.item_id for item in suite.items if item.item_id not in by_id]:
        raise CycleError(
            f"lm-eval returned no result for {len(missing)} of {len(suite.items)} items of suite "
            f"{suite.name}; missing answers are never counted as wrong"
        )
    return [by_id[item.item_id] for item in suite.items]


@cache
def _chat_model_class() -> Callable[[Asking], Any]:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    @register_model(MODEL_NAME)
    class PortChatModel(LM):  # type: ignore[misc]
        """Asks through the port; prompts arrive as JSON lists of messages."""

        tokenizer_name = MODEL_NAME

        def __init__(self, asking: Asking) -> None:
            super().__init__()
            self._asking = asking

        def apply_chat_template(
            self,
            chat_history: list[dict[str, str]],
            add_generation_prompt: bool = True,
        ) -> str:
            return json.dumps(chat_history, ensure_ascii=False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return ""

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return self._asking.answers([request.args[0] for request in requests])

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise CycleError("chat servers give no log-likelihood of a prompt; generate instead")

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise CycleError("chat servers give no log-likelihood of a prompt; generate instead")

    return PortChatModel


@contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Keep lm-eval and datasets off the network and off the terminal; what was set comes back."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
