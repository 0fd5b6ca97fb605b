"""The judges as the service asks them: none twice about one text, and each behind a breaker."""

from collections.abc import Callable
from typing import Protocol

from deltawheel.contracts.ports import Judge
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.services.judging.remembering import RememberingJudge
from deltawheel.services.runtime.entry import Parts
from deltawheel.services.runtime.guards import GuardedJudge

__all__ = ["Opening", "open_panel"]


class Opening(Protocol):
    """Opens the judge with something around each model that judges; a program has none."""

    def __call__(self, *, around: Callable[[Judge], Judge]) -> Judge:
        """Open it."""
        ...


def open_panel(
    opening: Opening, settings: JudgeSettings, parts: Parts, *, remembers: bool
) -> Judge:
    """Open the judge, with a breaker for each model.

    Without a judge whose score counts nothing can be done. One whose opinion alone is wanted stops
    only the traces that still wait for it. What is known passes no breaker: it says nothing of how
    the model is, and needs none that is up.

    Args:
        opening: Opens it.
        settings: Name the models, and those whose scores count.
        parts: What breakers and memory are made from.
        remembers: Whether scores are kept where the settings allow it; anchors are judged anew.
    """
    counted = {model.name for model in settings.counted.models.values()}

    def around(model: Judge) -> Judge:
        guarded = GuardedJudge(model, parts.dependencies, is_vital=model.name in counted)
        return _remembering(parts, guarded) if remembers and settings.cache else guarded

    opened = opening(around=around)
    return opened if counted else GuardedJudge(opened, parts.dependencies)


def _remembering(parts: Parts, model: Judge) -> RememberingJudge:
    return RememberingJudge(model, parts.store, clock=parts.clock, telemetry=parts.telemetry)
