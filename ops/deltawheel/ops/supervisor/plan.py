"""What `up` starts: one plan for each process, made from the settings."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from deltawheel.contracts.settings import BrokerKind, ServerSettings, Settings
from deltawheel.infra import vllm_server
from deltawheel.infra.listening import answers_200
from deltawheel.infra.processes import Command
from deltawheel.infra.settings_file import environment_without_settings

__all__ = [
    "SERVICES",
    "ProcessKind",
    "ProcessPlan",
    "ServiceProbe",
    "log_folder",
    "make_plans",
    "plan_broker",
    "plan_database",
    "plan_server",
    "plan_service",
    "read_health_port",
    "run_folder",
    "service_environment",
    "service_file",
]

# In the order in which they stop: what lets work in goes first, what it is handed to goes after.
SERVICES: Final = ("gateway", "generation", "judging", "curation", "training", "monitoring")
_NO_CONSUMERS: Final = frozenset({"gateway", "training"})
"""What only publishes goes on while a memory-only broker starts afresh: what is stored is owed."""
SERVICE_READY_TIMEOUT_S: Final = 120.0
BROKER_READY_TIMEOUT_S: Final = 60.0
DATABASE_READY_TIMEOUT_S: Final = 60.0


class ProcessKind(StrEnum):
    """What a process is; it decides what happens when it ends."""

    DATABASE = "database"
    BROKER = "broker"
    SERVER = "server"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """How one process is started, known to be ready, and stopped.

    Args:
        name: Its name in the run file, in `status` and of its log.
        kind: What it is.
        make_command: Makes the command anew for each start; a memory-only broker gets a fresh
            cluster id that way.
        is_ready: Asked from a thread of its own until it is true; may block for a second.
        ready_timeout_s: How long the first start may take.
        timeout_key: The settings key of that time, named when it was too short.
        log_file: Where its output goes.
        stop_order: Lower stops earlier.
        host: Where it listens.
        ports: What it listens on, as far as the settings fix it.
        is_memory_only: It is a broker that forgets everything when it ends.
        is_consumer: It reads topics, so its positions end with a memory-only broker.
        max_memory_bytes: Past this much resident memory, a memory-only broker is started afresh.
        max_boot_failures: Ends in a row before it was ever ready that end the run.
        run_file: A file that the process writes itself, removed before each start.
    """

    name: str
    kind: ProcessKind
    make_command: Callable[[], Command]
    is_ready: Callable[[], bool]
    ready_timeout_s: float
    log_file: Path
    stop_order: int
    timeout_key: str | None = None
    host: str = "127.0.0.1"
    ports: tuple[int, ...] = ()
    is_memory_only: bool = False
    is_consumer: bool = False
    max_memory_bytes: int | None = None
    max_boot_failures: int = 5
    run_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServiceProbe:
    """Whether a service answers /readyz on the health port that it wrote into its run file."""

    run_file: Path

    def __call__(self) -> bool:
        """Ask once; a service that has not written its file yet is not ready."""
        port = read_health_port(self.run_file)
        return port is not None and answers_200(f"http://127.0.0.1:{port}/readyz")


def read_health_port(run_file: Path) -> int | None:
    """Return the port of a service's health and metrics, or None while it has not written it."""
    try:
        return int(json.loads(run_file.read_text(encoding="utf-8"))["health_port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_folder(settings: Settings) -> Path:
    """Return the folder of what is true only while the wheel runs."""
    return settings.state / "run"


def service_file(settings: Settings, name: str) -> Path:
    """Return the file into which a service writes its pid and its health port."""
    return run_folder(settings) / f"{name}.json"


def log_folder(settings: Settings) -> Path:
    """Return the folder of the processes' logs."""
    return settings.state / "logs"


def service_environment() -> dict[str, str]:
    """Return what services inherit: no overrides of settings, for these are resolved already.

    An inherited `DELTAWHEEL_GATEWAY__PORT=0` would stand above the resolved settings' file. Their
    threads share two of the C library's heaps unless told otherwise: of many, each keeps its peak.
    """
    heaps = {"MALLOC_ARENA_MAX": "2"}
    return {**heaps, **environment_without_settings(), "PYTHONUNBUFFERED": "1"}


def plan_broker(
    settings: Settings, *, make_command: Callable[[], Command], is_ready: Callable[[], bool]
) -> ProcessPlan:
    """Return the plan of a broker that `up` starts itself; it stops last."""
    is_embedded = settings.broker.kind is BrokerKind.EMBEDDED
    return ProcessPlan(
        name="broker",
        kind=ProcessKind.BROKER,
        make_command=make_command,
        is_ready=is_ready,
        ready_timeout_s=BROKER_READY_TIMEOUT_S,
        log_file=log_folder(settings) / "broker.log",
        stop_order=len(SERVICES) + 1,
        host=settings.broker.host,
        ports=(settings.broker.port,),
        is_memory_only=is_embedded,
        max_memory_bytes=settings.broker.max_memory_mb * 1_000_000 if is_embedded else None,
    )


def plan_database(
    settings: Settings, *, make_command: Callable[[], Command], is_ready: Callable[[], bool]
) -> ProcessPlan:
    """Return the plan of a PostgreSQL that `up` starts itself, before everything else."""
    return ProcessPlan(
        name="postgres",
        kind=ProcessKind.DATABASE,
        make_command=make_command,
        is_ready=is_ready,
        ready_timeout_s=DATABASE_READY_TIMEOUT_S,
        log_file=log_folder(settings) / "postgres.log",
        stop_order=len(SERVICES) + 2,
        ports=(settings.store.port,),
    )


def plan_server(settings: Settings, server: ServerSettings) -> ProcessPlan:
    """Return the plan of one vLLM server; it boots while everything else starts."""
    return ProcessPlan(
        name=f"vllm-{server.name}",
        kind=ProcessKind.SERVER,
        make_command=lambda: vllm_server.make_command(server),
        is_ready=lambda: vllm_server.is_healthy(server),
        ready_timeout_s=server.boot_timeout_s,
        timeout_key=f"servers.{server.name}.boot_timeout_s",
        log_file=log_folder(settings) / f"vllm-{server.name}.log",
        stop_order=len(SERVICES),
        host=server.host,
        ports=(server.port,),
        max_boot_failures=3,
    )


def plan_service(settings: Settings, name: str, settings_file: Path) -> ProcessPlan:
    """Return the plan of one of the six services.

    Its first start may take as long as the slowest server: some are ready only once that answers.
    """
    # -P: the folder in which `up` was called must not stand in front of installed packages.
    module = f"deltawheel.services.{name}"
    argv = (sys.executable, "-P", "-m", module, "--settings", str(settings_file))
    run_file = service_file(settings, name)
    return ProcessPlan(
        name=name,
        kind=ProcessKind.SERVICE,
        make_command=lambda: Command(argv=argv, env=service_environment()),
        is_ready=ServiceProbe(run_file),
        ready_timeout_s=SERVICE_READY_TIMEOUT_S
        + max((server.boot_timeout_s for server in settings.servers), default=0),
        log_file=log_folder(settings) / f"{name}.log",
        stop_order=SERVICES.index(name),
        host=settings.gateway.host,
        ports=(settings.gateway.port,) if name == "gateway" else (),
        is_consumer=name not in _NO_CONSUMERS,
        run_file=run_file,
    )


def make_plans(
    settings: Settings, settings_file: Path, *, broker: ProcessPlan | None
) -> tuple[ProcessPlan, ...]:
    """Return the plans of a whole wheel; `broker` is unset where one runs elsewhere.

    Args:
        settings: Settings whose ports are resolved (`ports.resolve_ports`).
        settings_file: Those settings as a file, for the services (`ports.write_settings`).
        broker: The plan of our own broker (`plan_broker`).

    Raises:
        ConfigError: servers are asked for and vLLM is not installed.
    """
    if settings.servers:
        vllm_server.require_vllm()
    return (
        *((broker,) if broker is not None else ()),
        *(plan_server(settings, server) for server in settings.servers),
        *(plan_service(settings, name, settings_file) for name in SERVICES),
    )
