"""What is trained on, and what a short run on the sandbox's base leaves."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.settings import TrainingSettings
from deltawheel.infra.sandbox.grammar import Family, Problem, render_solution, sample_problem
from deltawheel.infra.sandbox.paths import base_path, generator_path
from deltawheel.pipelines.adapters import ADAPTER_WEIGHTS, adapter_digest
from deltawheel.pipelines.context import TrainingArm
from deltawheel.pipelines.files import write_json
from deltawheel.pipelines.selection import SLICE_FILE, SliceRow, write_slice
from deltawheel.pipelines.trainers import (
    SFT_LEARNING_RATE,
    TrainingInputs,
    fitting_rows,
    train_adapter,
)
from deltawheel.pipelines.training import LOG_FILE, MODEL_FOLDER, train
from tests.pipelines.fakes import SeededRandom, a_context, small_settings


class CharacterTokenizer:
    """One token per character, `U` and `A` before each turn, `.` after it."""

    def render(self, messages: Sequence[Mapping[str, str]], *, is_prompt: bool) -> str:
        turns = [f"{message['role'][0].upper()}{message['content']}." for message in messages]
        return "".join(turns) + ("A" if is_prompt else "")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
        return_dict: bool,
    ) -> dict[str, list[int]]:
        assert tokenize
        assert return_dict
        text = self.render(messages, is_prompt=add_generation_prompt)
        return {"input_ids": [ord(character) for character in text]}


class ThinkingTokenizer(CharacterTokenizer):
    """Opens a thought where it is to answer, and drops that thought from finished turns."""

    def render(self, messages: Sequence[Mapping[str, str]], *, is_prompt: bool) -> str:
        opening = "<think>" if is_prompt else ""
        return super().render(messages, is_prompt=is_prompt) + opening


def a_row(prompt: str = "1+1=", chosen: str = "A:2", rejected: str = "A:3") -> SliceRow:
    return SliceRow(
        pair_id=f"pair of {prompt}",
        prompt=json.dumps([{"role": "user", "content": prompt}]),
        chosen=chosen,
        rejected=rejected,
        delta=1.0,
        chosen_generator="strong@1",
        rejected_generator="weak@1",
        generator_delta=2.0,
    )


def fitting(
    rows: Sequence[SliceRow], max_length: int, tokenizer: CharacterTokenizer | None = None
) -> list[SliceRow]:
    return fitting_rows(rows, cast(Any, tokenizer or CharacterTokenizer()), max_length)


def test_a_pair_is_dropped_when_either_side_is_too_long() -> None:
    """`U1+1=.AA:2.` are eleven characters, so eleven tokens."""
    fits = a_row()
    long_chosen, long_rejected = a_row(chosen="A:20"), a_row(rejected="A:30")
    rows = [long_chosen, fits, long_rejected]
    assert fitting(rows, 11) == [fits]
    assert fitting(rows, 12) == rows


def test_a_slice_in_which_nothing_fits_is_a_cycle_error() -> None:
    with pytest.raises(
        CycleError, match=r"all 2 pairs are longer than training\.max_length \(10 tokens\)"
    ):
        fitting([a_row(), a_row("2+2=")], 10)


def test_a_template_that_renders_prompts_otherwise_alone_is_a_cycle_error() -> None:
    with pytest.raises(CycleError, match=r"prompt of pair pair of 1\+1= is not a prefix"):
        fitting([a_row()], 100, ThinkingTokenizer())


def test_a_template_that_differs_is_an_error_even_for_pairs_too_long_to_be_used() -> None:
    with pytest.raises(CycleError, match="is not a prefix"):
        fitting([a_row()], 1, ThinkingTokenizer())


@pytest.mark.parametrize(
    ("arm", "method"),
    [
        (arm, "sft" if arm in {TrainingArm.SFT, TrainingArm.SFT_RANDOM} else "dpo")
        for arm in TrainingArm
    ],
)
def test_only_the_supervised_arms_are_not_trained_by_dpo(arm: TrainingArm, method: str) -> None:
    assert arm.method == method


def sandbox_rows(num_rows: int) -> list[SliceRow]:
    """Pair a stepwise solution with a shortcut, as most of the sandbox's pairs are."""
    stream = SeededRandom(5)
    problems: dict[str, Problem] = {}
    while len(problems) < num_rows:
        problem = sample_problem(stream, Family.IN_DOMAIN, withheld=False)
        problems[problem.text] = problem
    return [
        a_row(
            text,
            chosen=render_solution(problem, is_stepwise=True),
            rejected=render_solution(problem, is_stepwise=False),
        )
        for text, problem in problems.items()
    ]


def inputs_of(
    tmp_path: Path,
    *,
    rows: Sequence[SliceRow] | None = None,
    champion: Path | None = None,
    method: Literal["dpo", "sft"] = "dpo",
    said: list[str] | None = None,
    **changes: Any,
) -> TrainingInputs:
    chosen = {"batch_size": 8, "warmup_steps": 1, **changes}
    return TrainingInputs(
        rows=sandbox_rows(32) if rows is None else rows,
        base=base_path(),
        champion=champion,
        method=method,
        settings=TrainingSettings(**chosen),
        scratch=tmp_path / "scratch",
        progress=(said if said is not None else []).append,
    )


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    loaded: dict[str, Any] = load_file(folder / ADAPTER_WEIGHTS)
    return loaded


@pytest.mark.integration
def test_a_short_run_reports_what_it_did(tmp_path: Path) -> None:
    said: list[str] = []
    too_long = a_row("1+2+3=", chosen="1+2=3;" * 40)
    inputs = inputs_of(tmp_path, rows=[*sandbox_rows(32), too_long], said=said)
    report = train_adapter(inputs, tmp_path / "model")
    assert (report.num_pairs, report.num_too_long, report.num_steps) == (32, 1, 4)
    saved = weights_of(tmp_path / "model")
    assert report.num_trainable == sum(weight.numel() for weight in saved.values()) > 0
    assert len(report.log) == 4
    assert report.final == report.log[-1]
    assert {"loss", "rewards/accuracies", "rewards/margins"} <= report.final.keys()
    assert report.log[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "log 2 before the first step"
    assert report.final["loss"] < report.log[0]["loss"]
    assert said[0] == f"dpo on 32 pairs, {report.num_trainable} trainable parameters"
    assert [line.split(":")[0] for line in said[1:]] == [f"step {n}/4" for n in range(1, 5)]


@pytest.mark.integration
def test_every_pass_goes_through_the_slice_again(tmp_path: Path) -> None:
    report = train_adapter(inputs_of(tmp_path, passes=2), tmp_path / "model")
    assert (report.num_pairs, report.num_steps) == (32, 8)


@pytest.mark.integration
def test_the_same_inputs_train_the_same_adapter(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        train_adapter(inputs_of(tmp_path), tmp_path / name)
        digests.append(adapter_digest(tmp_path / name))
    assert digests[0] == digests[1]
    train_adapter(inputs_of(tmp_path, seed=1), tmp_path / "three")
    assert adapter_digest(tmp_path / "three") != digests[0]


@pytest.mark.integration
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_training_starts_from_the_champion_and_changes_it(
    tmp_path: Path, method: Literal["dpo", "sft"]
) -> None:
    """With a tiny rate the result lies beside the champion, and far from a fresh adapter."""
    champion = generator_path("strong")
    inputs = inputs_of(tmp_path, champion=champion, method=method, learning_rate=1e-6)
    train_adapter(inputs, tmp_path / "model")
    before, after = weights_of(champion), weights_of(tmp_path / "model")
    assert before.keys() == after.keys()
    furthest = max(float((after[name] - before[name]).abs().max()) for name in before)
    size = max(float(weight.abs().max()) for weight in before.values())
    rate = inputs.learning_rate
    assert 0 < furthest <= 4 * rate * 1.01 < size / 4
    moved = [name for name in before if not bool((after[name] == before[name]).all())]
    assert any("lora_A" in name for name in moved)
    assert any("lora_B" in name for name in moved)


@pytest.mark.integration
def test_supervised_fine_tuning_reads_the_chosen_side_only(tmp_path: Path) -> None:
    rows = sandbox_rows(16)
    others = [a_row(json.loads(row.prompt)[0]["content"], row.chosen, "A:1") for row in rows]
    digests = []
    for number, given in enumerate((rows, others)):
        inputs = inputs_of(tmp_path, rows=given, method="sft")
        assert inputs.learning_rate == SFT_LEARNING_RATE
        report = train_adapter(inputs, tmp_path / str(number))
        assert "rewards/margins" not in report.final
        digests.append(adapter_digest(tmp_path / str(number)))
    assert digests[0] == digests[1]


@pytest.mark.integration
def test_a_run_whose_rate_stays_zero_is_found_out(tmp_path: Path) -> None:
    """The first step of a warm-up has rate 0; a slice of one batch takes no other step."""
    inputs = inputs_of(tmp_path, rows=sandbox_rows(8), champion=generator_path("strong"))
    with pytest.raises(CycleError, match="training left every weight as it was"):
        train_adapter(inputs, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.integration
def test_a_rate_that_explodes_is_found_out(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, warmup_steps=0, learning_rate=1e30)
    with pytest.raises(CycleError, match=r"lower training\.learning_rate"):
        train_adapter(inputs, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.integration
def test_the_step_leaves_one_folder_without_pickle_that_holds_its_base(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, training={"batch_size": 8, "warmup_steps": 1})
    said: list[str] = []
    with asyncio.Runner() as runner:
        context = a_context(settings, runner, pairs=(), said=said)
        context.folder.mkdir(parents=True)
        selected = context.done(StepName.SELECT)
        selected.mkdir()
        champion = Champion(
            model_name="deltawheel-default",
            version="4",
            adapter_path=str(generator_path("strong")),
        )
        write_json(selected / "result.json", {"champion": champion.model_dump(mode="json")})
        write_slice(selected / SLICE_FILE, iter(sandbox_rows(32)))
        result = train(context)

    model = context.folder / MODEL_FOLDER
    files = [path for path in context.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".jinja"}
    assert {path.name for path in context.folder.iterdir()} == {MODEL_FOLDER, LOG_FILE}
    assert {path.name for path in (model / "base").iterdir()} == {
        path.name for path in base_path().iterdir()
    }
    config = json.loads((model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len((context.folder / LOG_FILE).read_text().splitlines()) == 4
    assert said[0] == "reached training.step"
    assert (result["started_from"], result["method"]) == ("4", "dpo")
    assert (result["num_pairs"], result["num_too_long"], result["num_steps"]) == (32, 0, 4)
    assert result["adapter_digest"] == adapter_digest(model)
    assert result["adapter_digest"] != adapter_digest(generator_path("strong"))
