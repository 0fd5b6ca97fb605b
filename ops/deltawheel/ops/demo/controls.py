"""The demo's controls: one more stage process beside the running wheel."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra.processes import spawn_guarded
from deltawheel.ops.supervisor.child import read_last_lines
from deltawheel.ops.supervisor.plan import run_folder
from deltawheel.services.training.runner import Spawn, StageProcess

__all__ = ["ControlsRun", "start_controls"]

_STAGE: Final = "controls"


@dataclass(slots=True, kw_only=True)
class ControlsRun:
    """Trains and evaluates every control of a cycle, in a process of its own."""

    process: StageProcess
    folder: Path
    log_file: Path
    say: Callable[[str], None]
    _status: int | None = field(default=None, init=False)
    _num_said: int = field(default=0, init=False)

    def has_ended(self) -> bool:
        """Whether it has; says which control it has come to."""
        self._status = self.process.poll()
        begun = [
            line
            for line in self._log().splitlines(keepends=True)
            if line.startswith("control ") and line.endswith("\n")
        ]
        for line in begun[self._num_said :]:
            self.say(line.rstrip())
        self._num_said = len(begun)
        return self._status is not None

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return one row per arm, champion and candidate first.

        Raises:
            DeltawheelError: it failed; the message holds the end of its log.
        """
        if self._status != 0:
            raise DeltawheelError(
                f"the controls ended with status {self._status}; {self.log_file} ends with:\n"
                f"{read_last_lines(self.log_file)}"
            )
        result = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        rows: Sequence[Mapping[str, Any]] = result["rows"]
        return rows

    def _log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


def start_controls(
    settings: Settings,
    cycle_id: str,
    *,
    random: Random,
    say: Callable[[str], None],
    spawn: Spawn = spawn_guarded,
) -> ControlsRun:
    """Start the controls of a cycle that has been decided, on the wheel's own server."""
    cycle = settings.state / "cycles" / cycle_id
    log_file = cycle / f"{_STAGE}.log"
    argv = [sys.executable, "-P", "-m", "deltawheel.pipelines", "--step", _STAGE]
    argv += ["--settings", str(run_folder(settings) / "settings.yaml")]
    argv += ["--cycle", cycle_id, "--token", random.token()]
    process = spawn(argv, env=None, log_file=log_file)
    return ControlsRun(process=process, folder=cycle / _STAGE, log_file=log_file, say=say)
