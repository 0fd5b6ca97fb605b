"""One process of the plan as it runs: the thin shell around its lifecycle."""

import json
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.contracts.settings import SupervisorSettings
from deltawheel.infra.guard import KILLED
from deltawheel.infra.processes import (
    GuardedProcess,
    ProcessId,
    resident_bytes,
    spawn_guarded,
)
from deltawheel.ops.supervisor.background import BackgroundCall
from deltawheel.ops.supervisor.lifecycle import GiveUp, Lifecycle, Phase, RestartRules
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan
from deltawheel.ops.supervisor.runfile import ProcessState

__all__ = ["Child", "read_last_lines", "read_last_message"]

PROBE_EVERY_S: Final = 0.25
MAX_LOG_BYTES: Final = 50_000_000
MAX_TAIL_BYTES: Final = 4_000
MAX_MESSAGE_BYTES: Final = 200_000
NUM_TAIL_LINES: Final = 5


class Child:
    """Starts a process, asks whether it is ready, notices its end."""

    def __init__(self, plan: ProcessPlan, settings: SupervisorSettings, executor: Executor) -> None:
        self.plan = plan
        self.lifecycle = Lifecycle(
            RestartRules(
                base_s=settings.backoff_base_s,
                cap_s=settings.backoff_cap_s,
                stable_after_s=settings.stable_after_s,
                ready_timeout_s=plan.ready_timeout_s,
                max_boot_failures=plan.max_boot_failures,
            )
        )
        self._executor = executor
        self._process: GuardedProcess | None = None
        self._probe = self._make_probe()
        self._next_probe_at_s = 0.0
        self._halt_deadline_s: float | None = None
        self._members: tuple[ProcessId, ...] = ()
        self._last_status: int | None = None
        self._log_start = 0

    @property
    def is_service(self) -> bool:
        """Whether it is one of the six services."""
        return self.plan.kind is ProcessKind.SERVICE

    @property
    def is_ready(self) -> bool:
        """Whether it has answered since its last start, and is not about to stop."""
        return self.lifecycle.phase is Phase.READY and self._halt_deadline_s is None

    @property
    def refuses_settings(self) -> bool:
        """Whether it has been given up because only the operator can mend what it refuses."""
        return self.lifecycle.give_up is GiveUp.REFUSES_SETTINGS

    @property
    def process(self) -> GuardedProcess | None:
        """Return the process while there is one."""
        return self._process

    @property
    def has_outgrown(self) -> bool:
        """Whether it takes more memory than its plan allows."""
        limit = self.plan.max_memory_bytes
        return limit is not None and self.is_ready and resident_bytes(self._members) > limit

    def start(self, now_s: float) -> None:
        """Start the process.

        Raises:
            ConfigError: its command cannot be made from the settings.
            DeltawheelError: the machine cannot start it.
        """
        command = self.plan.make_command()
        try:
            self._log_start = _open_log(self.plan.log_file)
            if self.plan.run_file is not None:
                self.plan.run_file.unlink(missing_ok=True)
            self._process = spawn_guarded(
                command.argv, env=command.env, log_file=self.plan.log_file
            )
        except OSError as error:
            raise DeltawheelError(f"cannot start {self.plan.name}: {error}") from error
        # A new call: an answer to an earlier start's question must not count for this one.
        self._probe = self._make_probe()
        self._next_probe_at_s = now_s
        self.lifecycle.start(now_s)
        self.refresh_members()

    def notice_end(self, now_s: float, jitter: Callable[[], float]) -> bool:
        """Whether the process has ended since the last call; decides what follows from it."""
        if self._process is None or (status := self._process.poll()) is None:
            return False
        self._forget(status)
        if self._halt_deadline_s is not None:
            self._halt_deadline_s = None
            self.lifecycle.halt()
        else:
            self.lifecycle.end(
                now_s,
                jitter=jitter(),
                is_refusal=status == ExitCode.USAGE,
                # A model server that is killed while it loads mostly has too little memory.
                is_killed=status == KILLED and self.is_service,
            )
        return True

    def check(self, now_s: float, jitter: Callable[[], float]) -> None:
        """Ask whether it is ready; kill it if that, or a halt, takes too long."""
        if self._process is None:
            return
        if self._halt_deadline_s is not None:
            if now_s >= self._halt_deadline_s:
                self._process.close()
        elif self.lifecycle.is_overdue(now_s):
            self._process.kill()
            self._forget(self._process.wait())
            self.lifecycle.end(now_s, jitter=jitter(), is_overdue=True)
        elif self.lifecycle.phase is Phase.STARTING:
            self._ask(now_s)

    def halt(self, deadline_s: float) -> None:
        """Ask it to stop, to be started again later; kill it after the deadline."""
        if self._process is not None and self._halt_deadline_s is None:
            self._halt_deadline_s = deadline_s
            self._process.terminate()

    def stopped(self) -> None:
        """Take note that it has ended for good."""
        if self._process is not None:
            self._forget(self._process.poll())
        self.lifecycle.stop()

    def refresh_members(self) -> None:
        """Look up who is in its session; `reap` knows the session by them."""
        if self._process is not None:
            self._members = self._process.members()

    def state(self) -> ProcessState:
        """Return how it stands."""
        return ProcessState(
            name=self.plan.name,
            kind=self.plan.kind,
            phase=self.lifecycle.phase,
            guard=self._process.id if self._process is not None else None,
            members=self._members,
            host=self.plan.host,
            ports=self.plan.ports,
            num_restarts=self.lifecycle.num_restarts,
            last_status=self._last_status,
            log_file=self.plan.log_file,
        )

    def describe_failure(self) -> str | None:
        """Return the sentence that ends the run, if this process has been given up."""
        if self.lifecycle.give_up is None:
            return None
        if self.refuses_settings and self.is_service:
            message = read_last_message(self.plan.log_file, start=self._log_start)
            if message is not None:
                return message
        key = f" ({self.plan.timeout_key})" if self.plan.timeout_key else ""
        what = {
            GiveUp.NEVER_ANSWERS: f"did not answer within {self.plan.ready_timeout_s:g} s{key}",
            GiveUp.ENDS_WHILE_STARTING: f"ended {self.lifecycle.num_starts} times while starting, "
            f"last with status {self._last_status}",
            GiveUp.REFUSES_SETTINGS: "refuses its settings or arguments (status 2)",
        }[self.lifecycle.give_up]
        last = read_last_lines(self.plan.log_file, start=self._log_start)
        end = f"ends with:\n{last}" if last else "says nothing"
        return f"{self.plan.name} {what}; its log {self.plan.log_file} {end}"

    def _ask(self, now_s: float) -> None:
        answer = self._probe.take()
        if answer is not None and answer.result():
            self.lifecycle.become_ready(now_s)
            self.refresh_members()
        elif now_s >= self._next_probe_at_s:
            self._probe.start()
            self._next_probe_at_s = now_s + PROBE_EVERY_S

    def _make_probe(self) -> BackgroundCall[bool]:
        return BackgroundCall(self._executor, self.plan.is_ready)

    def _forget(self, status: int | None) -> None:
        self._last_status = status
        self._process = None
        self._members = ()


def read_last_lines(path: Path, *, start: int = 0) -> str:
    """Return the last few lines of a log, as far as they lie behind the byte `start`."""
    text = _read_tail(path, start, MAX_TAIL_BYTES)
    return "\n".join(text.rstrip().splitlines()[-NUM_TAIL_LINES:])


def read_last_message(path: Path, *, start: int = 0) -> str | None:
    """Return what a service said last, as far as it lies behind the byte `start`.

    Lines that are no JSON record are skipped: interpreters and libraries write them.
    """
    for line in reversed(_read_tail(path, start, MAX_MESSAGE_BYTES).splitlines()):
        try:
            return str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _read_tail(path: Path, start: int, max_bytes: int) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(start, path.stat().st_size - max_bytes))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def _open_log(path: Path) -> int:
    """Return where the next start's lines begin; a log that has grown long makes way first."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size > MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
        return 0
    return size
