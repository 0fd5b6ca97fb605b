"""A judge for prompts that carry their answer: exact and numeric match."""

from typing import Final

from deltawheel.contracts.errors import ConfigError, InvalidRecordError
from deltawheel.contracts.ids import canonical_json, digest_of
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.judges.planted import PlantedFaults
from deltawheel.infra.verifiers.answer import AnswerVerifier

__all__ = ["ExactMatchJudge"]

_VERSION: Final = "1"
_DIMENSION: Final = "factuality"
_RIGHT: Final = 5.0
_WRONG: Final = 1.0


class ExactMatchJudge:
    """Scores 5 where the answer is right by the prompt's reference answer, else 1."""

    name = "exact-match"

    def __init__(self, settings: JudgeSettings) -> None:
        """Take the rules from settings, which hold no pattern without a group."""
        self._faults = PlantedFaults.from_settings(settings)
        self._verifier = AnswerVerifier(settings)

    @property
    def revision(self) -> str:
        """Changes with everything that could change what is found right or a score."""
        verifier = self._verifier
        fields = [verifier.pattern, verifier.tolerance]
        rules = digest_of(canonical_json(fields)).removeprefix("sha256:")[:12]
        faults = f"+{self._faults.name}" if self._faults.name else ""
        return f"{self.name}-{_VERSION}.{rules}{faults}"

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Compare the answers.

        Raises:
            ConfigError: the rubric asks for anything but factuality.
            InvalidRecordError: the prompt carries no reference answer.
        """
        if set(rubric.dimensions) != {_DIMENSION}:
            raise ConfigError(
                f"rubric.dimensions: judge.kind exact-match scores {_DIMENSION} alone, not "
                f"{sorted(rubric.dimensions)}"
            )
        is_right = self._verifier.verify(prompt, trace)
        if is_right is None:
            raise InvalidRecordError(
                f"prompt {prompt.prompt_id} has no reference_answer: judge.kind exact-match "
                "needs one"
            )
        score = self._faults.apply(_RIGHT if is_right else _WRONG, _DIMENSION, trace)
        return Assessment(scores={_DIMENSION: Score(mean=score)}, is_correct=is_right)
