"""Text from models, fenced: a judge reads it as what it judges, never as what it is told.

The fence carries a random token, new for each trace, so that no text can close it; control
tokens of chat templates are defused, so that no text can begin a turn of its own.
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["ControlTokens", "fenced"]

_USUAL: Final = (
    r"<\|[^<>|\n]{1,40}\|?>"  # ChatML, Llama 3, Phi, GPT, Gemma 4: <|im_start|>, <|turn>
    r"|<[^<>|\n]{1,40}\|>"
    r"|<｜[^<>｜\n]{1,60}｜>"  # DeepSeek, with full-width bars
    r"|\[/?[A-Z_]{2,20}\]"  # Mistral: [INST], [/THINK]
    r"|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk|unused\d+)>"  # Llama 2 and SentencePiece
    r"|<(?:start|end)_of_\w+>|</?think>|</?tool_(?:call|response)>"  # Gemma, Qwen
)


class ControlTokens:
    """The control tokens that are defused.

    Args:
        further: Those of the judge's template that are not among the usual ones.
    """

    def __init__(self, further: Iterable[str] = ()) -> None:
        own = "".join(f"|{re.escape(token)}" for token in further if token)
        self._pattern = re.compile(_USUAL + own, re.IGNORECASE)

    def defused(self, text: str) -> str:
        """Return the text with a space behind the first character of every control token.

        It still reads the same, and no tokenizer makes a control token of it.
        """
        return self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def fenced(kind: str, text: str, token: str) -> str:
    """Return the text between lines that only this request's token can write."""
    return f"<<<{kind} {token}>>>\n{text}\n<<<end of {kind} {token}>>>"
