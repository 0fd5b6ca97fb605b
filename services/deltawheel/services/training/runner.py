"""Carrying a cycle through its steps: leased, resumable, each in a process of its own."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState
from deltawheel.contracts.errors import ConfigError, CycleError, RetryLaterError
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.ports import Producer
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.infra.processes import spawn_guarded
from deltawheel.services.training.adoption import adopt

__all__ = ["CycleRunner", "Spawn", "StageProcess"]

log = logging.getLogger("deltawheel.training")

_POLL_S = 0.2
"""By the clock, not by `stop.wait`: a signal's handler could interrupt the lock that it takes."""
_LONGEST_REST_S = 30.0
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_NEEDS_MACHINE = frozenset({StepName.TRAIN, StepName.EVALUATE})
_FINAL_EXITS = frozenset({1, 2})
_TRY_LATER = 75
"""EX_TEMPFAIL of sysexits.h; `pipelines.__main__` says what a stage's exit status means."""


class _StoppedError(Exception):
    """The service was asked to stop while a step ran."""


class _CrashedError(Exception):
    """A stage's process has ended without saying what that means."""


class StageProcess(Protocol):
    """A stage that runs; `infra.processes.GuardedProcess` says what the methods promise."""

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""
        ...

    def kill(self) -> None:
        """Kill it with all that it started."""
        ...


class Spawn(Protocol):
    """Starts a stage, as `infra.processes.spawn_guarded` does."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, log_file: Path
    ) -> StageProcess:
        """Start the command with its output in the log."""
        ...


@dataclass(slots=True, kw_only=True)
class CycleRunner:
    """Runs the oldest open cycle, one at a time.

    A step that was killed is begun again once its lease has run out, whoever held it; what the
    killed one left lies in a folder named for its token, which nothing reads.
    """

    settings: Settings
    settings_file: Path
    store: Store
    producer: Producer
    clock: Clock
    random: Random
    spawn: Spawn = spawn_guarded
    stop: Event = field(default_factory=Event)
    _held_until: datetime = field(default=_LONG_AGO, init=False)

    def run(self) -> None:
        """Look for open cycles until stopped."""
        while not self.stop.is_set():
            try:
                for cycle in self.store.open_cycles()[:1]:
                    self._run_cycle(cycle)
            except RetryLaterError as error:
                log.warning("the cycle waits: %s", error)
            except _StoppedError:
                return
            self.clock.wait(_POLL_S)

    def _run_cycle(self, cycle: Cycle) -> None:
        self.store.end_cycle(cycle.cycle_id, state=CycleState.RUNNING, at=self.clock.now())
        try:
            for name in StepName:
                self._carry_through(cycle.cycle_id, name)
        except CycleError as error:
            log.warning("cycle %s failed: %s", cycle.cycle_id, error)
            self._end(cycle.cycle_id, CycleState.FAILED, error=str(error))
            return
        verdict = Verdict(self._step_result(cycle.cycle_id, StepName.GATE)["verdict"])
        self._end(cycle.cycle_id, CycleState.ENDED, verdict=verdict)

    def _end(
        self,
        cycle_id: str,
        state: CycleState,
        *,
        verdict: Verdict | None = None,
        error: str | None = None,
    ) -> None:
        self.store.end_cycle(
            cycle_id, state=state, at=self.clock.now(), verdict=verdict, error=error
        )

    def _step_result(self, cycle_id: str, name: StepName) -> Mapping[str, Any]:
        cycle = self.store.cycle(cycle_id)
        if cycle is None:
            raise CycleError(f"the store has lost cycle {cycle_id}")
        return cycle.step(name).result

    def _carry_through(self, cycle_id: str, name: StepName) -> None:
        """Begin the step until one attempt at it has ended well, or for good."""
        num_failed = 0
        while not self._is_over(cycle_id, name):
            if self.stop.is_set():
                raise _StoppedError
            token = self.random.token()
            now = self.clock.now()
            step = self.store.begin_step(
                cycle_id, name, token=token, at=now, lease_until=self._lease_end()
            )
            if step is None:
                self.clock.wait(_POLL_S)
                continue
            if step.attempt > self.settings.training.max_step_attempts:
                reason = step.error or "its process was killed each time"
                self._finish(cycle_id, name, token, StepState.FAILED, error=reason)
                raise CycleError(f"step {name.value} gave up at attempt {step.attempt}: {reason}")
            self._held_until = step.lease_until or now
            log.info("step %s of %s begins, attempt %d", name.value, cycle_id, step.attempt)
            if not self._attempt(cycle_id, name, token):
                self._rest(min(_LONGEST_REST_S, 2.0**num_failed))
                num_failed += 1

    def _is_over(self, cycle_id: str, name: StepName) -> bool:
        """Whether the step has ended well.

        Raises:
            CycleError: another member has found that it cannot, or that the cycle is over.
        """
        cycle = self.store.cycle(cycle_id)
        if cycle is None:
            raise CycleError(f"the store has lost cycle {cycle_id}")
        step = cycle.step(name)
        if step.state is StepState.FAILED or cycle.state in {CycleState.ENDED, CycleState.FAILED}:
            raise CycleError(step.error or cycle.error or "another member has ended the cycle")
        return step.state in {StepState.DONE, StepState.SKIPPED}

    def _attempt(self, cycle_id: str, name: StepName, token: str) -> bool:
        """Make one attempt; return whether it has ended well.

        An outage is waited for and counts as no attempt, nor does a stop; a crash does.
        """
        try:
            state, result = self._work(cycle_id, name, token)
        except _StoppedError:
            self._finish(cycle_id, name, token, StepState.WAITING, is_counted=False)
            raise
        except RetryLaterError as error:
            text = str(error)
            self._finish(cycle_id, name, token, StepState.WAITING, error=text, is_counted=False)
            return False
        except _CrashedError as error:
            self._finish(cycle_id, name, token, StepState.WAITING, error=str(error))
            return False
        except (CycleError, ConfigError) as error:
            self._finish(cycle_id, name, token, StepState.FAILED, error=str(error))
            raise CycleError(f"step {name.value}: {error}") from error
        self._finish(cycle_id, name, token, state, result=result)
        return True

    def _finish(
        self,
        cycle_id: str,
        name: StepName,
        token: str,
        state: StepState,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        is_counted: bool = True,
    ) -> None:
        is_ours = self.store.finish_step(
            cycle_id,
            name,
            token=token,
            state=state,
            at=self.clock.now(),
            result=result,
            error=error,
            is_counted=is_counted,
        )
        if not is_ours:
            log.warning("step %s of %s was taken over meanwhile", name.value, cycle_id)

    def _work(
        self, cycle_id: str, name: StepName, token: str
    ) -> tuple[StepState, Mapping[str, Any]]:
        if name is StepName.ADOPT:
            verdict = self._step_result(cycle_id, StepName.GATE)["verdict"]
            if verdict != Verdict.PROMOTE.value:
                return StepState.SKIPPED, {"reason": f"the verdict is {verdict}"}
            return StepState.DONE, adopt(
                cycle_id,
                store=self.store,
                producer=self.producer,
                clock=self.clock,
                wheel=self.settings.wheel,
                keep=lambda: self._keep(cycle_id, name, token),
            )
        return StepState.DONE, self._run_stage(cycle_id, name, token)

    def _run_stage(self, cycle_id: str, name: StepName, token: str) -> Mapping[str, Any]:
        """Run one stage as a subprocess: no stage's memory or crash is this process's."""
        folder = self.settings.state / "cycles" / cycle_id
        log_file = folder / f"{name.value}.log"
        argv = [sys.executable, "-P", "-m", "deltawheel.pipelines"]
        argv += ["--settings", str(self.settings_file), "--cycle", cycle_id]
        argv += ["--step", name.value, "--token", token]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            process = self.spawn(argv, env=None, log_file=log_file)
        except OSError as error:
            raise CycleError(f"it cannot be started in {folder}: {error.strerror}") from error
        deadline_s = self.clock.monotonic() + self.settings.training.step_timeout_s
        try:
            while (status := process.poll()) is None:
                if self.clock.monotonic() > deadline_s:
                    raise CycleError(
                        f"{name.value} took longer than training.step_timeout_s "
                        f"({self.settings.training.step_timeout_s:.0f} s); see {log_file}"
                    )
                self._keep(cycle_id, name, token)
                self.clock.wait(_POLL_S)
        finally:
            process.kill()
            if name in _NEEDS_MACHINE:
                with suppress(RetryLaterError):  # it runs out by itself
                    self.store.release_lease(PAUSE_LEASE, token=token)
        return self._result(folder / name.value, log_file, status)

    def _keep(self, cycle_id: str, name: StepName, token: str) -> None:
        """Prolong what this attempt holds, and stop it when the service is asked to stop."""
        if self.stop.is_set():
            raise _StoppedError
        until = self._lease_end()
        needs_pause = name in _NEEDS_MACHINE and self.settings.training.pause_generation
        try:
            is_ours = self.store.renew_step(cycle_id, name, token=token, until=until)
            if is_ours and needs_pause:
                self.store.acquire_lease(PAUSE_LEASE, token=token, at=self.clock.now(), until=until)
        except RetryLaterError:
            # A store that is away for a moment must not cost hours of training.
            if self.clock.now() >= self._held_until:
                raise
            return
        if not is_ours:
            raise RetryLaterError(f"the lease of step {name.value} was taken over")
        self._held_until = until

    def _result(self, folder: Path, log_file: Path, status: int) -> Mapping[str, Any]:
        if status == 0:
            result: dict[str, Any] = json.loads((folder / "result.json").read_text())
            return result
        lines = log_file.read_text(errors="replace").strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        if status in _FINAL_EXITS:
            raise CycleError(f"{said} (log: {log_file})")
        reason = f"its process ended with status {status}: {said} (log: {log_file})"
        raise RetryLaterError(reason) if status == _TRY_LATER else _CrashedError(reason)

    def _rest(self, duration_s: float) -> None:
        """Let what failed recover before it is tried again."""
        until_s = self.clock.monotonic() + duration_s
        while not self.stop.is_set() and self.clock.monotonic() < until_s:
            self.clock.wait(_POLL_S)

    def _lease_end(self) -> datetime:
        return self.clock.now() + timedelta(seconds=self.settings.training.lease_s)
