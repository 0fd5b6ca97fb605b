"""Ports of one run."""

import os
import socket
import stat
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import (
    BrokerSettings,
    GatewaySettings,
    ServerSettings,
    Settings,
    StoreKind,
    StoreSettings,
)
from deltawheel.infra.listening import find_free_port, find_free_ports
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.supervisor.ports import listeners, resolve_ports, write_settings


def some_settings(home: Path, *, gateway: int = 0, broker: int = 0) -> Settings:
    return Settings(
        home=home,
        gateway=GatewaySettings(port=gateway),
        broker=BrokerSettings(port=broker),
        servers=(ServerSettings(name="local"), ServerSettings(name="other")),
    )


def test_open_ports_become_different_numbers(tmp_path: Path) -> None:
    ports = [listener.port for listener in listeners(resolve_ports(some_settings(tmp_path)))]
    assert len(set(ports)) == 4
    assert 0 not in ports


def test_own_postgres_gets_a_port_like_the_rest(tmp_path: Path) -> None:
    own = StoreSettings(kind=StoreKind.LOCAL_POSTGRES)
    settings = resolve_ports(some_settings(tmp_path).model_copy(update={"store": own}))
    ports = {listener.key: listener.port for listener in listeners(settings)}
    assert ports["store.port"] == settings.store.port != 0
    assert len(set(ports.values())) == 5


def test_fixed_port_is_kept(tmp_path: Path) -> None:
    port = find_free_port()
    assert resolve_ports(some_settings(tmp_path, gateway=port)).gateway.port == port


def test_port_in_use_names_key_port_holder_and_fix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError) as failure:
            resolve_ports(some_settings(tmp_path, gateway=port))
    assert str(failure.value).startswith(f"gateway.port: port {port} on 127.0.0.1 is in use by ")
    assert f"(pid {os.getpid()})" in str(failure.value)
    assert "set gateway.port to another port, or to 0 for a free one" in str(failure.value)


def test_one_port_for_two_is_refused(tmp_path: Path) -> None:
    (port,) = find_free_ports(1)
    with pytest.raises(ConfigError, match=rf"broker\.port: port {port} is also gateway\.port"):
        resolve_ports(some_settings(tmp_path, gateway=port, broker=port))


def test_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, gateway=GatewaySettings(host="203.0.113.1", port=find_free_port())
    )
    with pytest.raises(ConfigError, match=r"gateway\.port: cannot listen on 203\.0\.113\.1"):
        resolve_ports(settings)


def test_services_read_the_settings_as_they_were_resolved(tmp_path: Path) -> None:
    resolved = resolve_ports(some_settings(tmp_path))
    write_settings(resolved, tmp_path / "run" / "settings.yaml")
    assert load_settings(tmp_path / "run" / "settings.yaml") == resolved


def test_settings_file_is_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    write_settings(some_settings(tmp_path), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="home: cannot write"):
        write_settings(some_settings(tmp_path), tmp_path / "file" / "settings.yaml")
