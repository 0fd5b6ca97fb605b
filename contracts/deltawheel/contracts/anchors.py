"""Anchors: cases whose order on a dimension is known, by which the judge itself is judged.

(The `anchors` of a rubric are something else: its descriptions of what each score means.)
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["PARAPHRASE", "SOLUTION", "AnchorCase"]

SOLUTION: Final = "solution"
PARAPHRASE: Final = "paraphrase"
"""How the texts of a case are called beside the dimensions that the others were made worse on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorCase:
    """A task with a good solution, and texts of which is known how they compare with it.

    Args:
        name: What reports call it.
        task: The prompt.
        right_answer: Given to the judge as the reference answer.
        solution: A good one.
        paraphrase: The same in other words: no dimension should see a difference.
        corrupted: By dimension, a text that is worse on it, and on the others as little as can be.
    """

    name: str
    task: str
    right_answer: str | None
    solution: str
    paraphrase: str | None
    corrupted: Mapping[str, str]

    def texts(self, dimensions: Collection[str]) -> dict[str, str]:
        """Return all texts by what they are, less those made for dimensions that are not asked."""
        texts = {SOLUTION: self.solution}
        if self.paraphrase is not None:
            texts[PARAPHRASE] = self.paraphrase
        return texts | {name: it for name, it in self.corrupted.items() if name in dimensions}
