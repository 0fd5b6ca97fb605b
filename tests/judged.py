"""Settings of a wheel that a language model judges."""

from pathlib import Path
from typing import Any

import yaml

__all__ = ["judged_by"]


def judged_by(
    endpoint: str, folder: Path, *, rubric: dict[str, Any] | None = None, **ways: Any
) -> Path:
    """Write the settings of a wheel whose judge answers there, as `grader`; return their file."""
    model = {"name": "grader", "endpoint": endpoint, "model": "grader", **ways}
    content = {"judge": {"kind": "llm", "model": model}, "training": {"is_enabled": False}}
    path = folder / "deltawheel.yaml"
    path.write_text(yaml.safe_dump({**content, "rubric": rubric} if rubric else content))
    return path
