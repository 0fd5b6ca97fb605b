"""Processes on one core each: so that a client takes nothing from the server that it measures."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.infra.processes import Command
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan

__all__ = ["Cores", "pinned", "pinned_plan", "two_cores"]

Cores = tuple[int, int]
"""The server's core and everybody else's."""

_OMP_BIND: Final = "VLLM_CPU_OMP_THREADS_BIND"
"""vLLM's CPU build binds its threads by itself, whatever core the process was given."""


def two_cores() -> Cores:
    """Return two cores that this process may use.

    Raises:
        ConfigError: there is one alone.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ConfigError("this part needs two cores, one for the server and one for the client")
    return cores[0], cores[1]


def pinned(argv: Sequence[str], core: int | None) -> tuple[str, ...]:
    """Return the command that runs this one on one core; unset, wherever it likes."""
    return tuple(argv) if core is None else ("taskset", "--cpu-list", str(core), *argv)


def pinned_plan(plan: ProcessPlan, cores: Cores) -> ProcessPlan:
    """Return the plan of the same process on its core: a server's, or everybody else's."""
    is_server = plan.kind is ProcessKind.SERVER
    core = cores[0] if is_server else cores[1]

    def make_command() -> Command:
        command = plan.make_command()
        bound = {_OMP_BIND: str(core)} if is_server else {}
        return replace(command, argv=pinned(command.argv, core), env={**command.env, **bound})

    return replace(plan, make_command=make_command)
