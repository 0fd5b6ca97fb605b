"""A judge for prompts that carry their answer: exact and numeric match."""

import re
import unicodedata
from decimal import Decimal
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

__all__ = ["ExactMatchJudge"]

_VERSION: Final = "1"
_DIMENSION: Final = "factuality"
_RIGHT: Final = 5.0
_WRONG: Final = 1.0
_NUMBER: Final = re.compile(
    r"(?:(?<![\w)])[-+−])?"  # a sign, unless it subtracts from what stands before it
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\d))?"
)
_BRACE: Final = re.compile(r"\\boxed\{|\{|\}")
_AROUND: Final = " $€£%*`\"'"
# Patterns of operators run on the end of a text only, where answers stand: a pattern that is
# quadratic in the text would hold up the whole judging service.
_MAX_SEARCHED_CHARS: Final = 10_000
# Decimal arithmetic overflows at a million digits; longer numbers than these are compared as text.
_MAX_NUMBER_CHARS: Final = 1_000


class ExactMatchJudge:
    """Compares a trace's answer with the prompt's reference answer: 5 if they agree, else 1.

    As numbers, within a relative tolerance, where the reference is one; else as text, without
    regard to case, white space and a closing period, as many last lines as the reference has.
    Only the answer counts, not the reasoning that the server tells apart.
    """

    name = "exact-match"

    def __init__(self, settings: JudgeSettings) -> None:
        """Take the rules from settings, which hold no pattern without a group."""
        self._faults = PlantedFaults.from_settings(settings)
        self._tolerance = Decimal(repr(settings.numeric_tolerance))
        pattern = settings.answer_pattern
        self._pattern = re.compile(pattern) if pattern is not None else None

    @property
    def revision(self) -> str:
        """Changes with everything that could change what is found right or a score."""
        pattern = self._pattern.pattern if self._pattern else None
        rules = digest_of(canonical_json([pattern, self._tolerance])).removeprefix("sha256:")[:12]
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
        reference = prompt.reference_answer
        if reference is None or not reference.strip():
            raise InvalidRecordError(
                f"prompt {prompt.prompt_id} has no reference_answer: judge.kind exact-match "
                "needs one"
            )
        wanted = _last_boxed(reference) or reference
        is_right = self._agree(self._found(trace.answer, wanted), wanted)
        score = self._faults.apply(_RIGHT if is_right else _WRONG, _DIMENSION, trace)
        return Assessment(scores={_DIMENSION: Score(mean=score)}, is_correct=is_right)

    def _found(self, text: str, wanted: str) -> str:
        """Return what the text gives as its answer: the last, for models correct themselves."""
        is_numeric = _number(wanted) is not None
        if self._pattern is not None:
            groups = [match[1] for match in self._pattern.finditer(text[-_MAX_SEARCHED_CHARS:])]
            given = (groups[-1] or "") if groups else ""
        elif (boxed := _last_boxed(text)) is not None:
            given = boxed
        elif is_numeric:
            given = text
        else:
            given = "\n".join(_written_lines(text)[-len(_written_lines(wanted)) :])
        if not is_numeric or _number(given) is not None:
            return given
        numbers = [match[0] for match in _NUMBER.finditer(given)]
        return numbers[-1] if numbers else ""

    def _agree(self, answer: str, wanted: str) -> bool:
        number = _number(wanted)
        if number is None:
            return bool(answer.strip()) and _plain(answer) == _plain(wanted)
        given = _number(answer)
        return given is not None and abs(given - number) <= self._tolerance * abs(number)


def _last_boxed(text: str) -> str | None:
    r"""Return what stands in the last complete `\boxed{…}`, braces inside it included."""
    content, opened = None, list[re.Match[str]]()
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (start := opened.pop())[0] != "{":
            content = text[start.end() : brace.start()]
    return content


def _number(text: str) -> Decimal | None:
    """Return the number that the whole text is, or None; 1,234.50 and $ 12 % are numbers."""
    bare = _bare(text)
    if len(bare) > _MAX_NUMBER_CHARS or _NUMBER.fullmatch(bare) is None:
        return None
    return Decimal(bare.replace(",", "").replace("−", "-"))


def _plain(text: str) -> str:
    return _bare(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()))


def _bare(text: str) -> str:
    """Return the text without what stands around answers; where it is nothing else, all of it."""
    spaced = " ".join(text.split())
    return spaced.strip(_AROUND).removesuffix(".").strip(_AROUND) or spaced


def _written_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
