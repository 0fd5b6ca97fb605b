"""Verifies answers against the prompt's reference answer: exact, and numeric with a tolerance."""

import re
import unicodedata
from decimal import Decimal
from typing import Final

from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace

__all__ = ["AnswerVerifier"]

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


class AnswerVerifier:
    """Compares a trace's answer with the prompt's reference answer; see `contracts.ports.Verifier`.

    As numbers, within a relative tolerance, where the reference is one; else as text, without
    regard to case, white space and a closing period, as many last lines as the reference has.
    Only the answer counts, not the reasoning that the server tells apart.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        """Take the rules from settings, which hold no pattern without a group."""
        self.tolerance = Decimal(repr(settings.numeric_tolerance))
        pattern = settings.answer_pattern
        self._pattern = re.compile(pattern) if pattern is not None else None

    @property
    def pattern(self) -> str | None:
        """The regular expression whose first group is the answer."""
        return self._pattern.pattern if self._pattern else None

    def verify(self, prompt: Prompt, trace: Trace) -> bool | None:
        """Tell whether the answer is right; None where the prompt says none."""
        reference = prompt.reference_answer
        if reference is None or not reference.strip():
            return None
        wanted = _last_boxed(reference) or reference
        return self._agree(self._found(trace.answer, wanted), wanted)

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
        return given is not None and abs(given - number) <= self.tolerance * abs(number)


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
