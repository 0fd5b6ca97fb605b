"""Judging as it is wired: who judges the judge, and where nobody does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.failpoints import FileFailpoints
from deltawheel.infra.rubric_file import SHIPPED_RUBRIC, read_rubric
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.judging.__main__ import build
from deltawheel.services.judging.handler import Judging
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.entry import Parts
from tests.records import WHEEL

GRADER = {"name": "grader", "endpoint": "http://127.0.0.1:1/v1", "model": "grader"}
BY_MODEL: dict[str, Any] = {
    "judge": {"kind": "llm", "model": GRADER},
    "rubric": read_rubric(SHIPPED_RUBRIC),
}


class Wired:
    """Wires judging with the settings given, over a store of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.opened: list[Parts] = []

    def __call__(self, **sections: Any) -> Judging:
        settings = Settings(wheel=WHEEL, home=self._home, **sections)
        telemetry, clock, random = PrometheusTelemetry(), SystemClock(), SystemRandom(0)
        dependencies = Dependencies(
            clock=clock, random=random, telemetry=telemetry, settings=settings.runtime
        )
        parts = Parts(
            service="judging",
            settings=settings,
            settings_file=self._home / "wheel.yaml",
            store=wiring.open_store(settings),
            clock=clock,
            random=random,
            telemetry=telemetry,
            failpoints=FileFailpoints({}),
            dependencies=dependencies,
        )
        self.opened.append(parts)
        return build(parts)

    def close(self) -> None:
        for parts in self.opened:
            parts.store.close()


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Wired]:
    wired = Wired(tmp_path)
    yield wired
    wired.close()


def ticks(handler: Judging) -> list[tuple[str, float]]:
    return [(tick.name, tick.interval_s) for tick in handler.ticks]


def test_model_that_judges_is_judged_and_a_program_is_not(wired: Wired) -> None:
    assert ticks(wired(**BY_MODEL)) == [("anchors", 60)]
    assert ticks(wired()) == []


def test_settings_have_the_last_word(wired: Wired) -> None:
    assert ticks(wired(**BY_MODEL, anchors={"interval_s": 0})) == []
    assert ticks(wired(anchors={"interval_s": 20})) == [("anchors", 20)]


@pytest.mark.parametrize("combine", ["first", "mean"])
def test_panel_that_is_dealt_is_the_panel_that_judges(wired: Wired, combine: str) -> None:
    judge = {**BY_MODEL["judge"], "jury": {"members": [{**GRADER, "name": "juror"}]}}
    judge["jury"]["combine"] = combine
    handler = wired(**{**BY_MODEL, "judge": judge})
    [parts] = wired.opened
    assert handler.judge.revision == wiring.judge_revision(parts.settings)
    grader = wiring.judge_revision(Settings(wheel=WHEEL, **BY_MODEL))
    assert (handler.judge.revision == grader) == (combine == "first")
