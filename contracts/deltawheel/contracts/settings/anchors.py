"""Settings of anchors: the cases by which the judge itself is judged."""

from pathlib import Path

from pydantic import Field

from deltawheel.contracts.settings.section import Section

__all__ = ["AnchorSettings"]


class AnchorSettings(Section):
    """Which cases of known order there are."""

    file: Path | None = Field(
        default=None,
        description="YAML file with anchor cases for a rubric of your own; unset takes those that "
        "ship, which speak of the paper's dimensions.",
    )
