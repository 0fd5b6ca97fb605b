"""All checks, and how they are run: at the same time, and none for ever."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.doctor import flow, ground, machine, reach
from deltawheel.ops.doctor.findings import Check, Finding, Level, Site, failure, from_sentence
from deltawheel.ops.supervisor.runfile import read_killed_run, read_run

__all__ = ["CHECKS", "DEADLINE_S", "Examined", "examine", "site_of"]

DEADLINE_S: Final = 15.0

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "python": machine.check_python,
        "packages": machine.check_packages,
        "memory": machine.check_memory,
        "clock": machine.check_clock,
        "settings": ground.check_settings,
        "token": ground.check_token,
        "files": ground.check_files,
        "home": ground.check_home,
        "run": ground.check_run,
        "ports": ground.check_ports,
        "store": reach.check_store,
        "flow": flow.check_flow,
        "broker": reach.check_broker,
        "servers": reach.check_servers,
        "models": reach.check_models,
        "registry": reach.check_registry,
    }
)
"""Every check by its name, in the order in which they are shown; another one is a line here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A finding, and the check whose it is."""

    check: str
    finding: Finding

    @property
    def is_failure(self) -> bool:
        """Whether it has to be put right."""
        return self.finding.level is Level.FAILURE


def site_of(settings: Settings, config: Path | None) -> Site:
    """Look which wheel runs, or was killed, on this home."""
    return Site(
        settings=settings,
        config=config,
        clock=wiring.system_clock(),
        run=read_run(settings),
        killed=read_killed_run(settings),
    )


def examine(
    site: Site, checks: Mapping[str, Check] = CHECKS, *, deadline_s: float = DEADLINE_S
) -> list[Examined]:
    """Run all checks at the same time; what has not ended after `deadline_s` is a failure.

    Their threads are daemons, so one that still waits for a dead host holds up nobody's exit.
    """
    answers = {name: _start(name, check, site) for name, check in checks.items()}
    wait(answers.values(), timeout=deadline_s)
    return [
        Examined(check=name, finding=finding)
        for name, answer in answers.items()
        for finding in _findings(answer, deadline_s)
    ]


def _start(name: str, check: Check, site: Site) -> Future[tuple[Finding, ...]]:
    answer: Future[tuple[Finding, ...]] = Future()

    def run() -> None:
        try:
            answer.set_result(tuple(check(site)))
        except Exception as error:  # shown by `_findings`, so that the others still are
            answer.set_exception(error)

    threading.Thread(target=run, name=f"doctor {name}", daemon=True).start()
    return answer


def _findings(answer: Future[tuple[Finding, ...]], deadline_s: float) -> tuple[Finding, ...]:
    if not answer.done():
        return (
            failure(
                f"no result within {deadline_s:g} s",
                "look whether the host that the settings name is up, and whether this machine is "
                "overloaded",
            ),
        )
    error = answer.exception()
    if error is None:
        return answer.result()
    if isinstance(error, DeltawheelError):
        return (from_sentence(error),)
    return (
        failure(
            f"the check itself failed: {type(error).__name__}: {error}",
            "report this line as a fault of Deltawheel",
        ),
    )
