"""`deltawheel up` in a process of its own, so that the supervisor can be killed like the rest."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.gateway_client import GatewayClient
from deltawheel.infra.guard import ProcessStat, find_descendants, read_processes, send_signal
from deltawheel.infra.processes import ProcessId, identify, is_alive
from deltawheel.ops.bench.chaos.schedule import SUPERVISOR
from deltawheel.ops.bench.chaos.world import CONFIG, chaos_environment
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import SERVICES, run_folder
from deltawheel.ops.supervisor.runfile import ProcessState, RunRecord, read_run

__all__ = ["DELTAWHEEL", "ChaosWheel", "Victim"]

DELTAWHEEL: Final = str(Path(sys.executable).with_name("deltawheel"))
_STOP_TIMEOUT_S: Final = 120.0
_DATABASE: Final = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A process that was killed, and the guard or supervisor that must no longer be seen."""

    name: str
    old: ProcessId

    def is_replaced(self, run: RunRecord | None) -> bool:
        """Whether another one answers in its place; for the supervisor, with all its processes."""
        if run is None:
            return False
        if self.name == SUPERVISOR:
            return run.supervisor != self.old and _is_whole(run)
        return any(
            one.name == self.name
            and one.phase is Phase.READY
            and one.guard is not None
            and one.guard != self.old
            for one in run.processes
        )


class ChaosWheel:
    """Starts `up`, finds its processes, kills them, and remembers everybody whom it has seen."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.num_starts = 0
        self.seen: set[ProcessId] = set()
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The settings file, for commands on this wheel."""
        return self.settings.home / CONFIG

    @property
    def log_file(self) -> Path:
        """Where `up` says what it does."""
        return self.settings.home / "up.log"

    @property
    def has_ended(self) -> bool:
        """Whether `up` has ended or was not started."""
        return self._process is None or self._process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """Whether every process answers."""
        run = self.run()
        return run is not None and _is_whole(run)

    def start(self) -> None:
        """Start `up` in a session of its own: Ctrl-C is for the bench, which stops it in order."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [DELTAWHEEL, "--config", str(self.config), "up"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=chaos_environment(self.settings.home),
                start_new_session=True,
            )
        self.num_starts += 1

    def stop(self) -> int:
        """Ask it to stop, kill it if that takes minutes; return its exit status.

        Raises:
            DeltawheelError: it had to be killed.
        """
        process = self._process
        if process is None:
            return 0
        self.look()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise DeltawheelError(
                f"up did not stop within {_STOP_TIMEOUT_S:g} s: look into {self.log_file}"
            ) from error

    def hurry(self) -> None:
        """Make a `stop` under way kill what it would wait for; safe in a signal handler."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    def run(self) -> RunRecord | None:
        """Return the run that is on, as its run file says."""
        return read_run(self.settings)

    def gateway(self) -> GatewayClient | None:
        """Return where prompts go in, or None while nobody supervises."""
        run = self.run()
        return wiring.open_gateway(run.gateway_url) if run is not None else None

    def resolved(self) -> Settings:
        """Return the settings with the ports of the run that is on."""
        return wiring.load_settings(run_folder(self.settings) / "settings.yaml")

    def look(self) -> None:
        """Remember every process of the wheel, to be looked for after the end."""
        if self._process is None:
            return
        processes = read_processes()
        roots = [self._process.pid]
        if (run := self.run()) is not None:
            roots += [state.guard.pid for state in run.processes if state.guard]
            self.seen.update(one for state in run.processes for one in state.members)
        self.seen.update(
            identify(found) for root in roots for found in find_descendants(root, processes)
        )

    def survivors(self) -> list[ProcessId]:
        """Return those of all processes ever seen that still run."""
        return [process for process in self.seen if is_alive(process)]

    def kill_survivors(self) -> None:
        """Kill what should not be there any more."""
        for process in self.survivors():
            os.kill(process.pid, signal.SIGKILL)

    def kill(self, name: str, *, signum: int = signal.SIGKILL) -> Victim | None:
        """Kill a process by its name in the run file; None if there is none at the moment."""
        self.look()
        run = self.run()
        if run is None:
            return None
        if name == SUPERVISOR:
            return self._kill_supervisor(run)
        state = _state(run, name)
        main = _main_process(state) if state is not None else None
        if state is None or state.guard is None or main is None or not send_signal(main, signum):
            return None
        return Victim(name=name, old=state.guard)

    def kill_guard(self, name: str) -> Victim | None:
        """Kill the guard above a service; None if there is none at the moment."""
        self.look()
        run = self.run()
        state = _state(run, name) if run is not None else None
        guard = read_processes().get(state.guard.pid) if state and state.guard else None
        if state is None or state.guard is None or guard is None or identify(guard) != state.guard:
            return None
        return Victim(name=name, old=state.guard) if send_signal(guard, signal.SIGKILL) else None

    def _kill_supervisor(self, run: RunRecord) -> Victim | None:
        """Kill `up` and wait for its end; it is for the caller to start it again."""
        if self._process is None or self._process.poll() is not None:
            return None
        self._process.kill()
        self._process.wait()
        return Victim(name=SUPERVISOR, old=run.supervisor)


def _is_whole(run: RunRecord) -> bool:
    """Whether everything answers; database and broker stand in the file before the services do."""
    ready = {state.name for state in run.processes if state.phase is Phase.READY}
    return ready >= {*SERVICES, "broker", "postgres"}


def _state(run: RunRecord, name: str) -> ProcessState | None:
    return next((state for state in run.processes if state.name == name), None)


def _main_process(state: ProcessState) -> ProcessStat | None:
    """Return what the guard runs; PostgreSQL stands below a small parent of its own."""
    if state.guard is None or not is_alive(state.guard):
        return None
    processes = read_processes()
    pid = state.guard.pid
    for _ in range(2 if state.name == _DATABASE else 1):
        below = [one for one in processes.values() if one.parent == pid and one.is_alive]
        if not below:
            return None
        pid = below[0].pid
    return processes[pid]
