"""Traps: failpoints armed by files, and whoever is held is killed."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from deltawheel.contracts.failpoints import Failpoint
from deltawheel.ops.bench.chaos.schedule import HeldAt
from deltawheel.ops.bench.chaos.traps import Traps
from tests.ops.test_feeding import PassingClock

JUDGING = HeldAt(Failpoint.JUDGING_RECEIVED, "judging")
STORED = HeldAt(Failpoint.RUNTIME_STORED, "generation")
OTHER_STORED = HeldAt(Failpoint.RUNTIME_STORED, "curation")
GATEWAY = HeldAt(Failpoint.GATEWAY_STORED, "gateway")


@dataclass
class Stage:
    """Traps whose kills are written down."""

    folder: Path
    clock: PassingClock = field(default_factory=PassingClock)
    killed: list[HeldAt] = field(default_factory=list)
    can_kill: bool = True
    will_come: bool = True

    def __post_init__(self) -> None:
        self.traps = Traps(
            folder=self.folder, prepare=self.prepare, kill=self.kill, clock=self.clock
        )

    def prepare(self, at: HeldAt) -> bool:
        return self.will_come

    def kill(self, at: HeldAt) -> bool:
        if self.can_kill:
            self.killed.append(at)
        return self.can_kill

    def is_armed(self, at: HeldAt) -> bool:
        return (self.folder / f"{at.point}.armed").exists()

    def hold(self, at: HeldAt, *, pid: int | None = None) -> None:
        """Do what a process does that comes to the point."""
        (self.folder / f"{at.point}.armed").unlink()
        (self.folder / f"{at.point}.reached").write_text(f"{pid or os.getpid()} subject")


def test_whoever_is_held_is_killed_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.traps.arm(JUDGING)
    stage.traps.tick()
    assert stage.killed == []
    stage.hold(JUDGING)
    stage.can_kill = False
    stage.traps.tick()
    assert not stage.traps.is_empty
    stage.can_kill = True
    stage.traps.tick()
    stage.traps.tick()
    assert stage.killed == [JUDGING]
    assert stage.traps.held == {JUDGING: 1}
    assert stage.traps.is_empty


def test_point_that_several_services_pass_is_armed_for_one_of_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.traps.arm(STORED)
    stage.traps.arm(JUDGING)
    assert (tmp_path / "runtime.stored.armed").read_text() == "generation "
    assert (tmp_path / "judging.received.armed").read_text() == ""


def test_few_are_armed_at_once_and_each_point_for_one_service(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.traps.arm(STORED)
    assert not stage.traps.arm(OTHER_STORED)
    assert stage.traps.arm(JUDGING)
    assert not stage.traps.arm(GATEWAY)


def test_point_that_nobody_would_come_to_is_not_armed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, will_come=False)
    assert not stage.traps.arm(JUDGING)
    assert not stage.is_armed(JUDGING)


def test_point_at_which_the_held_died_of_something_else_is_armed_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.traps.arm(JUDGING)
    stage.hold(JUDGING, pid=2**22 + 1)
    stage.traps.tick()
    assert stage.killed == []
    assert stage.is_armed(JUDGING)
    assert not (tmp_path / f"{JUDGING.point}.reached").exists()


def test_point_that_nobody_comes_to_is_given_up_after_three_tries(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.traps.arm(JUDGING)
    for _ in range(3):
        assert stage.is_armed(JUDGING)
        stage.clock.wait(91)
        stage.traps.tick()
    assert stage.traps.missed == [JUDGING]
    assert stage.traps.is_empty
    assert not stage.is_armed(JUDGING)


def test_disarmed_points_let_everybody_pass(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.traps.arm(STORED)
    stage.traps.arm(JUDGING)
    stage.traps.disarm()
    assert not stage.is_armed(STORED)
    assert not stage.is_armed(JUDGING)
