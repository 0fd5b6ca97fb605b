"""Verifies multiple choice: the letter that a text settles on."""

import re
from typing import Final

from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace

__all__ = ["ChoiceVerifier"]

_REFERENCE: Final = re.compile(r"\s*\(?([A-Za-z])[).:]?\s*")
# "A" and "I" before a word are an article and a pronoun.
_LETTER: Final = r"([B-HJ-Z]|[AI](?!\s+[a-z]))(?![A-Za-z'])"
_SAID: Final = re.compile(
    r"(?i:answer|choice|option)\**(?:\s*:|\s+(?i:is|was|must be|would be)\b)[^A-Za-z\n]{0,6}"
    rf"(?:(?i:option|choice)\s+)?[^A-Za-z\n]{{0,3}}{_LETTER}"
    rf"|(?i:must be|choose|pick|select)\s+(?:(?i:option|choice)\s+)?\(?{_LETTER}"
    r"|\\boxed\{\s*(?:\\text\w*\{)?\(?([A-Z])(?![A-Za-z])"
)
_ALONE: Final = re.compile(r"(?:^|[\s(*])([A-Z])(?=[).:*]|\s*$)", re.MULTILINE)
_MAX_SEARCHED_CHARS: Final = 10_000


class ChoiceVerifier:
    """Compares the letter of an answer with that of the reference; see `contracts.ports.Verifier`.

    The last letter that is named as the answer counts; where none is, the last that stands alone
    as choices do, as in `(B)`, `B.` or a line of its own.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        """Need no settings: the form of a choice is fixed."""

    def verify(self, prompt: Prompt, trace: Trace) -> bool | None:
        """Tell whether the letter is right; None where the reference answer is none."""
        wanted = _REFERENCE.fullmatch(prompt.reference_answer or "")
        if wanted is None:
            return None
        text = trace.answer[-_MAX_SEARCHED_CHARS:]
        said = ["".join(found) for found in _SAID.findall(text)] or _ALONE.findall(text)
        return bool(said) and said[-1].upper() == wanted[1].upper()
