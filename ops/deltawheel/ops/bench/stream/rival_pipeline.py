"""The same boundary in distilabel 1.5.3; run by an environment of its own, as a script.

Two zero-latency generators, a zero-latency judge that distilabel's UltraFeedback task asks, and its
DPO format; prompts in, its dataset on disk out, everything else as it comes. The judge is asked
once a trace, as Deltawheel's is, or once a prompt about both traces, which is what UltraFeedback is
made for and half the work.

    python rival_pipeline.py PROMPTS.json EMPTY_FOLDER trace|prompt

Prints one JSON object on the last line. `busy_s` begins when the first generator is first asked, so
that the start of its processes is not held against it.
"""

import json
import sys
import time  # noqa: TID251 - where this runs there is no Clock port
from pathlib import Path
from typing import Any

from distilabel.models.llms import LLM
from distilabel.pipeline import Pipeline
from distilabel.steps import FormatTextGenerationDPO, GroupColumns, LoadDataFromDicts, Step
from distilabel.steps.base import StepInput
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from pydantic import PrivateAttr

RATED = "Rating: {stars}\nRationale: As planned."


class Instant(LLM):  # type: ignore[misc]
    """Answers at once, and writes down when it was first asked."""

    name: str
    text: str
    notes: str
    _is_new: bool = PrivateAttr(default=True)

    @property
    def model_name(self) -> str:
        """What the dataset calls it."""
        return self.name

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[Any]:
        """Answer all of them with the same text."""
        if self._is_new:
            self._is_new = False
            Path(self.notes, self.name).write_text(repr(time.time()))
        counts = {"input_tokens": [16], "output_tokens": [64]}
        answer = {"generations": [self.text] * num_generations, "statistics": counts}
        return [answer for _ in inputs]


class Flatten(Step):  # type: ignore[misc]
    """Puts the traces that were judged one by one beside each other."""

    @property
    def inputs(self) -> list[str]:
        """What the judges have left."""
        return ["generations", "ratings"]

    @property
    def outputs(self) -> list[str]:
        """What the DPO format asks for."""
        return ["generations", "ratings"]

    def process(self, inputs: StepInput) -> Any:  # noqa: ANN401
        """Turn lists of one into one list."""
        for row in inputs:
            for column in self.outputs:
                row[column] = [value for each in row[column] for value in each]
        yield inputs


def judged_by_trace(texts: dict[str, str], notes: str) -> tuple[list[Any], list[Any]]:
    """Return the steps that take prompts, and those that give rated traces, one each."""
    asks, judges = [], []
    for stars, (name, text) in zip((5, 2), texts.items(), strict=True):
        ask = TextGeneration(llm=Instant(name=name, text=text, notes=notes), name=f"ask_{name}")
        one = GroupColumns(
            columns=["generation"], output_columns=["generations"], name=f"one_{name}"
        )
        said = RATED.format(stars=stars)
        judge = UltraFeedback(
            llm=Instant(name="judge", text=said, notes=notes), name=f"judge_{name}"
        )
        ask >> one >> judge
        asks.append(ask)
        judges.append(judge)
    return asks, judges


def by_trace(prompts: list[str], texts: dict[str, str], folder: Path) -> Pipeline:
    """Build the pipeline whose judge is asked about one trace at a time."""
    with Pipeline("deltawheel-bench", cache_dir=str(folder / "cache")) as pipeline:
        asks, judges = judged_by_trace(texts, str(folder))
        both = GroupColumns(
            columns=["generations", "ratings"], output_columns=["generations", "ratings"]
        )
        load = LoadDataFromDicts(data=[{"instruction": text} for text in prompts])
        load >> asks
        judges >> both >> Flatten() >> FormatTextGenerationDPO()
    return pipeline


def by_prompt(prompts: list[str], texts: dict[str, str], folder: Path) -> Pipeline:
    """Build the pipeline whose judge is asked about both traces at once."""
    notes = str(folder)
    with Pipeline("deltawheel-bench", cache_dir=str(folder / "cache")) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": text} for text in prompts])
        asks = [
            TextGeneration(llm=Instant(name=name, text=text, notes=notes), name=f"ask_{name}")
            for name, text in texts.items()
        ]
        both = GroupColumns(
            columns=["generation", "model_name"],
            output_columns=["generations", "generation_models"],
        )
        said = "\n\n".join(RATED.format(stars=stars) for stars in (5, 2))
        judge = UltraFeedback(llm=Instant(name="judge", text=said, notes=notes))
        load >> asks >> both >> judge >> FormatTextGenerationDPO()
    return pipeline


def main(prompts_file: Path, folder: Path, judged: str) -> None:
    """Run it once on all prompts of the file."""
    given = json.loads(prompts_file.read_text(encoding="utf-8"))
    build = {"trace": by_trace, "prompt": by_prompt}[judged]
    pipeline = build(given["prompts"], given["texts"], folder)
    begun = time.time()
    distiset = pipeline.run(use_cache=False)
    ended = time.time()
    rows = distiset["default"]["train"]
    pairs = {row["prompt_id"] for row in rows if row["chosen_rating"] > row["rejected_rating"]}
    first = min(float((folder / name).read_text()) for name in given["texts"])
    said = {"pairs": len(pairs), "busy_s": ended - first, "whole_s": ended - begun}
    sys.stdout.write(f"\n{json.dumps(said)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
