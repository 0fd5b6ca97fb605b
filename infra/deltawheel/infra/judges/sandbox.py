"""The sandbox's programmatic judge: it parses and recomputes every step of a trace."""

from typing import Final

from deltawheel.contracts.errors import ConfigError, InvalidRecordError
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.judges.planted import PlantedFaults
from deltawheel.infra.sandbox.grammar import Problem
from deltawheel.infra.sandbox.verifier import DIMENSIONS, verify

__all__ = ["SandboxJudge"]

_VERSION: Final = "1"
"""Grows when the verifier, or anything here, could give the same trace another score."""


class SandboxJudge:
    """Scores chained arithmetic; every score is 1 + 4 × share, as the grammar defines the share.

    Whether the answer is right is the verifier's own finding and knows nothing of planted faults.
    """

    name = "sandbox"

    def __init__(self, settings: JudgeSettings) -> None:
        """Take the faults to plant."""
        self._faults = PlantedFaults.from_settings(settings)

    @property
    def revision(self) -> str:
        """The judge's version and whatever faults are planted in it."""
        faults = self._faults.name
        return f"{self.name}-{_VERSION}+{faults}" if faults else f"{self.name}-{_VERSION}"

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score every dimension of the rubric.

        Raises:
            ConfigError: the rubric has a dimension that the grammar does not define.
            InvalidRecordError: the prompt is no problem of the sandbox.
        """
        if unknown := sorted(rubric.dimensions.keys() - DIMENSIONS.keys()):
            raise ConfigError(
                f"rubric.dimensions: the sandbox judge cannot score {unknown}; it scores "
                f"{sorted(DIMENSIONS)}"
            )
        verification = verify(_problem_of(prompt), trace.text)
        scores = {
            name: Score(mean=self._faults.apply(1 + 4 * verification.shares[name], name, trace))
            for name in rubric.dimensions
        }
        return Assessment(scores=scores, is_correct=verification.is_correct)


def _problem_of(prompt: Prompt) -> str:
    """Return the text of the last user message, once it is known to be a problem."""
    texts = [message.content for message in prompt.messages if message.role == "user"]
    try:
        return Problem.parse(texts[-1] if texts else "").text
    except ValueError as error:
        raise InvalidRecordError(
            f"prompt {prompt.prompt_id} cannot be judged: {error}; judge.kind sandbox knows no "
            "other prompts (set judge.kind: exact-match for those with a reference_answer)"
        ) from error
