"""Ports and the settings file of one run: what was left open is decided here, once for all."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from deltawheel.contracts.addresses import host_port
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import BrokerKind, Settings, StoreKind
from deltawheel.infra.listening import find_free_ports, port_holder, port_in_use
from deltawheel.infra.settings_file import save_settings

__all__ = [
    "Listener",
    "check_ports",
    "listeners",
    "port_faults",
    "resolve_ports",
    "write_settings",
]


class Listener(NamedTuple):
    """An address that the wheel listens on, and the settings key of its port."""

    key: str
    host: str
    port: int


def listeners(settings: Settings) -> Iterator[Listener]:
    """Return every address that `up` makes something listen on."""
    yield Listener("gateway.port", settings.gateway.host, settings.gateway.port)
    if settings.broker.kind is not BrokerKind.KAFKA:
        yield Listener("broker.port", settings.broker.host, settings.broker.port)
    if settings.store.kind is StoreKind.LOCAL_POSTGRES:
        yield Listener("store.port", "127.0.0.1", settings.store.port)
    for server in settings.servers:
        yield Listener(f"servers.{server.name}.port", server.host, server.port)


def resolve_ports(settings: Settings) -> Settings:
    """Return the settings with every port a number, after making sure that it can be had.

    The home becomes absolute as well, so that a process finds it from any folder.

    Raises:
        ConfigError: a port that the settings fix is in use or cannot be used.
    """
    check_ports(settings)
    found = list(listeners(settings))
    taken = {listener.port for listener in found}
    # As many more as could collide with ports that are fixed but not open yet.
    free = iter([p for p in find_free_ports(2 * len(found)) if p not in taken])
    ports = {key: port or next(free) for key, _, port in found}
    servers = tuple(
        server.model_copy(update={"port": ports[f"servers.{server.name}.port"]})
        for server in settings.servers
    )
    broker_port = ports.get("broker.port", settings.broker.port)
    store_port = ports.get("store.port", settings.store.port)
    return settings.model_copy(
        update={
            "home": settings.home.expanduser().resolve(),
            "gateway": settings.gateway.model_copy(update={"port": ports["gateway.port"]}),
            "broker": settings.broker.model_copy(update={"port": broker_port}),
            "store": settings.store.model_copy(update={"port": store_port}),
            "servers": servers,
        }
    )


def check_ports(settings: Settings) -> None:
    """Make sure that every port that the settings fix is free and fixed once.

    Raises:
        ConfigError: one is not; the message names key, port, holder where visible, and the fix.
    """
    for fault in port_faults(settings):
        raise ConfigError(fault)


def port_faults(settings: Settings, *, freed: Collection[int] = ()) -> Iterator[str]:
    """Return a sentence for each port that the settings fix and that cannot be had.

    Those in `freed` may be in use: they will be free by the time that they are needed.
    """
    seen: dict[int, str] = {}
    for key, host, port in listeners(settings):
        if port == 0:
            continue
        if port in seen:
            yield f"{key}: port {port} is also {seen[port]}; give it another, or 0"
            continue
        seen[port] = key
        if port not in freed:
            yield from _port_fault(key, host, port)


def write_settings(settings: Settings, path: Path) -> None:
    """Write settings as the YAML file that services read; only this user may read it.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        save_settings(settings, path)
    except OSError as error:
        raise ConfigError(f"home: cannot write {path}: {error.strerror}; free or fix it") from error


def _port_fault(key: str, host: str, port: int) -> Iterator[str]:
    try:
        is_used = port_in_use(host, port)
    except OSError as error:
        yield (
            f"{key}: cannot listen on {host_port(host, port)}: {error.strerror}; give another "
            "host or port, or 0 for a free one"
        )
        return
    if is_used:
        holder = port_holder(port)
        by = f" by {holder}" if holder else ""
        yield (
            f"{key}: port {port} on {host} is in use{by}; stop that process, or set {key} to "
            "another port, or to 0 for a free one"
        )
