"""Builds the sandbox's base and generators from a seed: about 12 minutes on 2 cores, no network."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deltawheel.infra.sandbox.paths import GENERATORS, Manifest, describe_files
from deltawheel.pipelines.sandbox.accuracy import NUM_ITEMS, first_step_opening, measure_accuracy
from deltawheel.pipelines.sandbox.corpus import BASE_MIX, GENERATOR_MIXES, Mix, draw_batches
from deltawheel.pipelines.sandbox.model import (
    BASE_SCHEDULE,
    GENERATOR_SCHEDULE,
    Schedule,
    new_base,
    new_generator,
    train,
)
from deltawheel.pipelines.sandbox.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

COMMAND: Final = "deltawheel sandbox build"

Progress = Callable[[str], None]


def build(
    output: Path,
    *,
    seed: int,
    progress: Progress,
    num_threads: int | None = None,
) -> Manifest:
    """Train the base and its generators and write them with their manifest.

    What `output` held under ``base/`` and ``generators/`` is replaced.

    Args:
        output: The folder to fill.
        seed: Decides every draw and every initial weight.
        progress: Told in a sentence how far the build is.
        num_threads: Torch's threads; by default all cores. Give only the cores that are free:
            two threads with one core taken are four times slower than one.
    """
    import torch

    torch.set_num_threads(num_threads or os.cpu_count() or 1)
    tokenizer = build_tokenizer()
    builder = _Builder(output, tokenizer, seed, progress)
    base = builder.build_base()
    measured = {
        "base": measure_accuracy(base, tokenizer, seed=seed),
        "base made to start with a step": measure_accuracy(
            base, tokenizer, seed=seed, opening=first_step_opening
        ),
    }
    for name in GENERATORS:
        generator = builder.build_generator(name, base)
        measured[name] = measure_accuracy(generator, tokenizer, seed=seed)
        base = generator.unload()
    manifest = Manifest(
        seed=seed,
        command=COMMAND,
        num_items=NUM_ITEMS,
        greedy_accuracy=measured,
        files=describe_files(output),
    )
    manifest.write(output)
    for name, accuracy in measured.items():
        progress(f"{name}: {accuracy}")
    return manifest


@dataclass(frozen=True, slots=True)
class _Builder:
    """What every training of one build shares."""

    output: Path
    tokenizer: "PreTrainedTokenizerFast"
    seed: int
    progress: Progress

    def build_base(self) -> "LlamaForCausalLM":
        """Train the base from nothing and write it with its tokenizer."""
        import torch

        torch.manual_seed(self.seed)
        base = new_base(self.tokenizer)
        self._train("base", base, BASE_MIX, BASE_SCHEDULE)
        folder = _emptied(self.output / "base")
        base.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder, save_jinja_files=False)
        return base

    def build_generator(self, name: str, base: "LlamaForCausalLM") -> "PeftModel":
        """Train one generator's adapter on the base and write it."""
        import torch

        torch.manual_seed(self.seed)
        generator = new_generator(base)
        self._train(name, generator, GENERATOR_MIXES[name], GENERATOR_SCHEDULE)
        _save_adapter(generator, _emptied(self.output / "generators" / name))
        return generator

    def _train(
        self, name: str, model: "LlamaForCausalLM | PeftModel", mix: Mix, schedule: Schedule
    ) -> None:
        """Train a model on a corpus of its own, telling the progress under its name."""
        corpus = draw_batches(
            name,
            mix,
            num_batches=schedule.num_steps,
            batch_size=schedule.batch_size,
            seed=self.seed,
        )
        train(
            model, self.tokenizer, corpus, schedule, lambda told: self.progress(f"{name}: {told}")
        )


def _save_adapter(generator: "PeftModel", folder: Path) -> None:
    """Write an adapter without PEFT's model card, the same bytes for the same adapter.

    PEFT keeps the adapted modules in a set, so their order in the configuration changes from one
    process to the next. Told to look for resized embeddings, as by default, it would also ask the
    hub for the base's configuration.
    """
    generator.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"].sort()
    path.write_text(f"{json.dumps(config, indent=2, sort_keys=True)}\n", encoding="utf-8")


def _emptied(folder: Path) -> Path:
    """Make a folder that holds nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
