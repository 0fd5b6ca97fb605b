"""What a wheel stands on here: settings, secrets, files, folders, ports, and what ran before."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deltawheel.contracts.addresses import host_port, is_loopback
from deltawheel.contracts.errors import ConfigError
from deltawheel.ops.doctor.findings import (
    Finding,
    Level,
    Site,
    failure,
    from_sentence,
    ok,
    warning,
)
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.runfile import RunRecord, run_file

__all__ = [
    "check_files",
    "check_home",
    "check_ports",
    "check_run",
    "check_settings",
    "check_token",
    "examine_folder",
    "judge_space",
]

_GB: Final = 1e9
_FULL_GB: Final = 0.5
_LOW_GB: Final = 5.0
"""Some promoted versions, each with its base, and the slices of their cycles."""

_UP_CLEARS: Final = "`deltawheel up` clears up after it, and goes on from the store"


def check_settings(site: Site) -> Iterator[Finding]:
    """Name where the settings come from; a wrong key is told before any check runs."""
    from deltawheel.infra.declared_pool import settings_doubts

    where = f"{site.config} is valid" if site.config else "no file: the defaults are in force"
    yield ok(where)
    for sentence in settings_doubts(site.settings):
        yield from_sentence(sentence, Level.WARNING)


def check_token(site: Site) -> Iterator[Finding]:
    """Look for the gateway's token, which is needed where others can reach it."""
    from deltawheel.infra.credentials import gateway_token

    try:
        token = gateway_token(site.settings.gateway)
    except ConfigError as error:
        yield from_sentence(error)
    else:
        who = "only this machine" if is_loopback(site.settings.gateway.host) else "others"
        asks = "asks for the token" if token else "asks for no token"
        yield ok(f"the gateway {asks}, and {who} can reach it")


def check_files(site: Site) -> Iterator[Finding]:
    """Look for bases, adapters and suites that the settings name."""
    from deltawheel.infra.sandbox.paths import find_changed_files
    from deltawheel.ops.preflight import file_faults

    if changed := find_changed_files():
        yield failure(
            f"the sandbox's {', '.join(changed)} differ from what was shipped",
            todo="check the repository out again, or run `deltawheel sandbox build`",
        )
    faults = file_faults(site.settings)
    for fault in faults:
        yield from_sentence(fault, otherwise="correct that file, or name another")
    if not faults:
        adapters = sum(generator.adapter is not None for generator in site.settings.generators)
        yield ok(
            f"all are where the settings say: {len(site.settings.servers)} base, {adapters} "
            f"adapters, {len(site.settings.evaluation.suites)} suites"
        )


def check_home(site: Site) -> Iterator[Finding]:
    """Look whether state can be kept, and how much more of it."""
    yield examine_folder("home", site.settings.home)


def examine_folder(key: str, folder: Path) -> Finding:
    """Look at a folder, or at the one in which it would be made: rights and free space."""
    path = folder.expanduser().resolve()
    footing = next(one for one in (path, *path.parents) if os.path.exists(one))
    if not footing.is_dir():
        return failure(f"{footing} is no folder", f"move it away, or set {key} to another folder")
    if not os.access(footing, os.W_OK | os.X_OK):
        return failure(
            f"{footing} may not be written by this user",
            f"give this user the right to write it, or set {key} to another folder",
        )
    free_gb = shutil.disk_usage(footing).free / _GB
    verb = "written" if footing == path else "made"
    return judge_space(key, f"{path} can be {verb}", free_gb)


def judge_space(key: str, about: str, free_gb: float) -> Finding:
    """Say whether so much free space will do for what the key names."""
    found = f"{about}, {free_gb:.1f} GB are free there"
    if free_gb < _FULL_GB:
        return failure(found, f"free space, or set {key} to a folder on another disk")
    if free_gb < _LOW_GB:
        return warning(found, f"free space, or set {key} to a folder on another disk")
    return ok(found)


def check_run(site: Site) -> Iterator[Finding]:
    """Tell whether a wheel runs here and how it is, or what a killed one has left."""
    if site.run is not None:
        yield _state_of(site.run)
    elif site.killed is not None:
        left = [process.name for process in site.killed.left_processes()]
        yield warning(
            f"a wheel that ran since {site.killed.started_at:%Y-%m-%d %H:%M} UTC was killed, and "
            + (f"has left {', '.join(left)}" if left else "has left no process"),
            _UP_CLEARS,
        )
    elif (path := run_file(site.settings)).exists():
        yield warning(
            f"{path} cannot be read",
            "`deltawheel up` sets it aside; if a wheel was killed, end its processes by hand",
        )
    else:
        yield ok("no wheel runs here, and none was killed")


def _state_of(run: RunRecord) -> Finding:
    about = f"a wheel runs since {run.started_at:%Y-%m-%d %H:%M} UTC (pid {run.supervisor.pid})"
    late = [process for process in run.processes if process.phase is not Phase.READY]
    if not run.processes:
        return warning(f"{about}, but none of its processes has begun", "wait for some seconds")
    if not late:
        return ok(f"{about}, and its {len(run.processes)} processes are ready")
    names = ", ".join(f"{process.name} ({process.phase.value})" for process in late)
    todo = f"wait if it has just begun, else look into {late[0].log_file}"
    return warning(f"{about}, but not ready: {names}", todo)


def check_ports(site: Site) -> Iterator[Finding]:
    """Look whether the ports are free, or held by the wheel that runs here."""
    from deltawheel.ops.supervisor.ports import listeners, port_faults

    if site.run is not None:
        yield _ports_of(site.run)
        return
    left = site.killed.left_processes() if site.killed is not None else ()
    freed = {port for process in left for port in process.ports}
    faults = list(port_faults(site.settings, freed=freed))
    yield from map(from_sentence, faults)
    fixed = [one for one in listeners(site.settings) if one.port]
    if held := ", ".join(f"{one.key} {one.port}" for one in fixed if one.port in freed):
        yield warning(f"held by what a killed wheel has left: {held}", _UP_CLEARS)
    elif not faults:
        free = ", ".join(f"{one.key} {one.port}" for one in fixed)
        yield ok(f"free: {free}" if free else "any free ones are taken at the start")


def _ports_of(run: RunRecord) -> Finding:
    from deltawheel.infra.listening import port_in_use

    held = [(one.name, one.host, port) for one in run.processes for port in one.ports if port]
    silent = [
        f"{name} on {host_port(host, port)}"
        for name, host, port in held
        if not port_in_use(host, port)
    ]
    if silent:
        return warning(
            f"nothing listens for {', '.join(silent)}, though the wheel runs",
            "look at `deltawheel status`, and into the logs of these processes",
        )
    ports = ", ".join(f"{name} {port}" for name, _, port in held)
    return ok(f"held by the wheel that runs here: {ports}")
