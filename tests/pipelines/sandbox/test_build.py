from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawheel.infra.sandbox.grammar import Family, is_withheld, render_solution
from deltawheel.infra.sandbox.paths import base_path, find_changed_files, generator_path, manifest
from deltawheel.infra.sandbox.verifier import verify
from deltawheel.pipelines.sandbox.accuracy import measure_accuracy
from deltawheel.pipelines.sandbox.build import build
from deltawheel.pipelines.sandbox.corpus import (
    BASE_MIX,
    GENERATOR_MIXES,
    Mix,
    TrainingText,
    draw_batches,
)
from deltawheel.pipelines.sandbox.model import IGNORED_LABEL, encode
from deltawheel.pipelines.sandbox.tokenizer import VOCABULARY, build_tokenizer

PROMPT = "17+8*3="
SOLUTION = "17+8=25;25*3=75;A:75"
USER = {"role": "user", "content": PROMPT}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def draw(mix: Mix, num_texts: int = 2000) -> Iterator[TrainingText]:
    for batch in draw_batches("test", mix, num_batches=num_texts // 100, batch_size=100, seed=3):
        yield from batch


@pytest.mark.parametrize("mix", [BASE_MIX, *GENERATOR_MIXES.values()])
def test_a_corpus_has_the_stepwise_share_that_its_mix_says(mix: Mix) -> None:
    stepwise = [";" in text.solution for text in draw(mix)]
    assert sum(stepwise) / len(stepwise) == pytest.approx(mix.stepwise_share, abs=0.04)


@pytest.mark.parametrize("mix", [BASE_MIX, *GENERATOR_MIXES.values()])
def test_nothing_withheld_is_trained_on(mix: Mix) -> None:
    assert not any(is_withheld(text.problem.text) for text in draw(mix))


def test_the_base_learns_flawless_solutions_to_every_family() -> None:
    texts = list(draw(BASE_MIX))
    assert all(verify(ex.problem.text, ex.solution).is_correct for ex in texts)
    operations = {operation for ex in texts for operation, _ in ex.problem.steps}
    assert operations == set("+-*Mm")


@pytest.mark.parametrize("mix", GENERATOR_MIXES.values())
def test_generators_learn_only_in_domain_problems_and_slip_on_half_of_the_carries(mix: Mix) -> None:
    num_carries = num_slips = 0
    for text in draw(mix):
        assert Family.IN_DOMAIN.has([operation for operation, _ in text.problem.steps])
        careful = render_solution(text.problem, is_stepwise=True)
        careless = render_solution(text.problem, is_stepwise=True, slips=[True] * 3)
        shown, right, flawed = (
            written.split(";")[0] for written in (text.solution, careful, careless)
        )
        if shown in (right, flawed) and right != flawed:
            num_carries += 1
            num_slips += shown == flawed
    assert num_slips / num_carries == pytest.approx(0.5, abs=0.25)


def test_one_seed_gives_one_corpus_and_another_another() -> None:
    def solutions(seed: int) -> list[str]:
        (batch,) = draw_batches("base", BASE_MIX, num_batches=1, batch_size=50, seed=seed)
        return [text.solution for text in batch]

    assert solutions(1) == solutions(1)
    assert solutions(1) != solutions(2)


def test_every_token_is_one_character_and_texts_survive_a_round_trip(tokenizer: Any) -> None:
    ids = tokenizer.encode(PROMPT + SOLUTION)
    assert len(ids) == len(PROMPT + SOLUTION)
    assert tokenizer.decode(ids) == PROMPT + SOLUTION
    assert len(tokenizer) == len(VOCABULARY) == 22


def test_foreign_characters_become_the_unknown_token(tokenizer: Any) -> None:
    assert tokenizer.encode("é\n 😀") == [tokenizer.unk_token_id] * 4


def test_a_chat_is_exactly_the_training_prompt(tokenizer: Any) -> None:
    text = next(draw(BASE_MIX))
    chat = [{"role": "user", "content": text.problem.text}]
    ids, labels = encode(tokenizer, [text])
    num_prompt = len(text.problem.text)
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert prompt == ids[0, :num_prompt].tolist()
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text.solution}])[
        "input_ids"
    ]
    assert whole == ids[0].tolist()
    assert labels[0].tolist() == [IGNORED_LABEL] * num_prompt + whole[num_prompt:]


def test_a_prompt_is_a_prefix_of_prompt_and_answer_which_ends_with_the_end_token(
    tokenizer: Any,
) -> None:
    chat = [USER, {"role": "assistant", "content": SOLUTION}]
    prompt = tokenizer.apply_chat_template([USER], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert prompt == PROMPT
    assert whole == PROMPT + SOLUTION + tokenizer.eos_token


def test_the_tokenizer_in_the_package_is_the_one_that_the_code_makes(tokenizer: Any) -> None:
    from transformers import AutoTokenizer

    packaged = AutoTokenizer.from_pretrained(base_path())
    assert packaged.get_vocab() == tokenizer.get_vocab()
    assert packaged.chat_template == tokenizer.chat_template
    assert packaged.encode(PROMPT) == tokenizer.encode(PROMPT)
    assert packaged.eos_token == tokenizer.eos_token


@pytest.mark.integration
def test_the_packaged_models_are_as_good_as_their_manifest_says(tokenizer: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_path())
    declared = manifest()
    measured = measure_accuracy(base, tokenizer, seed=declared.seed, num_items=200)
    assert measured == pytest.approx(declared.greedy_accuracy["base"], abs=0.1)
    strong = PeftModel.from_pretrained(base, generator_path("strong"))
    measured = measure_accuracy(strong, tokenizer, seed=declared.seed, num_items=200)
    assert measured == pytest.approx(declared.greedy_accuracy["strong"], abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_rebuild_agrees_with_the_packaged_weights(tmp_path: Path) -> None:
    declared = manifest()
    told: list[str] = []
    rebuilt = build(tmp_path, seed=declared.seed, progress=told.append)
    assert told
    assert find_changed_files(tmp_path) == []
    assert rebuilt.files.keys() == declared.files.keys()
    for name, accuracy in declared.greedy_accuracy.items():
        assert rebuilt.greedy_accuracy[name] == pytest.approx(accuracy, abs=0.08), name
