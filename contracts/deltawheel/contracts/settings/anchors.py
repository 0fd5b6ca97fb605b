"""Settings of anchors: the cases by which the judge itself is judged."""

from pathlib import Path
from typing import Final

from pydantic import Field

from deltawheel.contracts.settings.section import Section

__all__ = ["ANCHORS_EVERY_S", "AnchorSettings"]

ANCHORS_EVERY_S: Final = 21_600.0
"""How often a model that judges is judged itself, unless settings say otherwise."""


class AnchorSettings(Section):
    """Which cases of known order there are, and how often they are judged again."""

    file: Path | None = Field(
        default=None,
        description="YAML file with anchor cases for a rubric of your own; unset takes those that "
        "ship, which speak of the paper's dimensions.",
    )
    interval_s: float | None = Field(
        default=None,
        ge=0,
        description="How often judging judges them again; 0: never; unset: every 6 hours where a "
        "model judges, and never where a program does, for that cannot move by itself.",
    )
    num_cases: int = Field(
        default=6, ge=1, description="How many of the file's cases are judged again: the first."
    )
    limit: float = Field(
        default=0.25,
        gt=0,
        description="Points by which their mean on a dimension may move before judging counts as "
        "drifted and selection freezes; more where test-retest says that chance does as much.",
    )
