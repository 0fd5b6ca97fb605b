"""How a broker is started, and what an operator reads when it cannot be."""

import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import BrokerKind, BrokerSettings, Settings
from deltawheel.infra.brokers import broker_command, broker_is_ready
from deltawheel.infra.listening import find_free_port
from tests.components import ROOT, require
from tests.waiting import wait_for

BESIDE_THE_REPOSITORY = ROOT.parent / "shared" / "kafka"


def settings_for(home: Path, kind: BrokerKind = BrokerKind.LOCAL_KAFKA) -> Settings:
    return Settings(home=home, broker=BrokerSettings(kind=kind, port=find_free_port()))


def a_kafka(folder: Path, *, format_script: str = "exit 0") -> Path:
    """Make a folder that looks like an unpacked Apache Kafka."""
    scripts = {"kafka-server-start.sh": "exit 0", "kafka-storage.sh": format_script}
    (folder / "bin").mkdir(parents=True)
    for name, line in scripts.items():
        script = folder / "bin" / name
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
    return folder


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Listen, and give the first who connects this answer; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def ready_at(port: int, home: Path) -> bool:
    return broker_is_ready(Settings(home=home, broker=BrokerSettings(port=port)))


def test_embedded_broker_has_a_new_cluster_id_at_each_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, BrokerKind.EMBEDDED)
    first, second = broker_command(settings).argv, broker_command(settings).argv
    assert f"tcp://127.0.0.1:{settings.broker.port}" in first
    assert "memory://tansu/" in first
    assert first[:-1] == second[:-1]
    assert first[-2] == "--cluster-id"
    assert first[-1] != second[-1]


def test_brokers_listen_on_ipv6_in_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(kind: BrokerKind) -> Settings:
        return Settings(home=tmp_path, broker=BrokerSettings(kind=kind, host="::1", port=9092))

    assert "tcp://[::1]:9092" in broker_command(settings(BrokerKind.EMBEDDED)).argv
    monkeypatch.setenv("KAFKA_HOME", str(a_kafka(tmp_path / "kafka")))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    broker_command(settings(BrokerKind.LOCAL_KAFKA))
    written = (tmp_path / "state" / "kafka" / "server.properties").read_text()
    assert "listeners=PLAINTEXT://[::1]:9092,CONTROLLER://[::1]:" in written
    assert "advertised.listeners=PLAINTEXT://[::1]:9092\n" in written


@pytest.mark.parametrize("home", [None, "", "no/kafka/here"])
def test_missing_kafka_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("KAFKA_HOME", home)
    with pytest.raises(ConfigError, match="set KAFKA_HOME to its folder"):
        broker_command(settings_for(tmp_path))


def test_missing_java_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(a_kafka(tmp_path / "kafka")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigError, match="Java 17 or newer"):
        broker_command(settings_for(tmp_path))


def test_failing_format_is_told_in_kafkas_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = a_kafka(tmp_path / "kafka", format_script="echo no space left >&2; exit 1")
    monkeypatch.setenv("KAFKA_HOME", str(home))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DeltawheelError, match="cannot format its data folder: no space left"):
        broker_command(settings_for(tmp_path))


def test_cluster_id_never_reads_as_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [uuid.UUID(bytes=bytes([first]) + bytes(15)) for first in (0xF8, 0xFB, 0xF7)]
    monkeypatch.setattr("deltawheel.infra.brokers.uuid.uuid4", lambda: ids.pop(0))
    home = a_kafka(tmp_path / "kafka", format_script=f'echo "$*" > {tmp_path}/told')
    monkeypatch.setenv("KAFKA_HOME", str(home))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    broker_command(settings_for(tmp_path))
    assert "-t 9wAA" in (tmp_path / "told").read_text()


def test_properties_say_where_and_how_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(a_kafka(tmp_path / "kafka")))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    settings = settings_for(tmp_path)
    start, properties = broker_command(settings).argv
    text = Path(properties).read_text()
    assert start.endswith("bin/kafka-server-start.sh")
    assert f"listeners=PLAINTEXT://127.0.0.1:{settings.broker.port}," in text
    assert f"message.max.bytes={settings.broker.max_message_bytes}\n" in text
    assert f"log.dirs={settings.state.resolve() / 'kafka' / 'data'}\n" in text


def test_nobody_listening_is_not_ready(tmp_path: Path) -> None:
    assert not ready_at(find_free_port(), tmp_path)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x06\0\0\0\x01\0\0"]
)
def test_other_server_on_the_port_is_no_broker(tmp_path: Path, answer: bytes) -> None:
    with answering(answer) as port:
        assert not ready_at(port, tmp_path)


def test_server_that_says_nothing_is_not_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ready_at(server.getsockname()[1], tmp_path)


@pytest.mark.integration
def test_local_kafka_starts_again_on_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "KAFKA_HOME" not in os.environ and BESIDE_THE_REPOSITORY.is_dir():
        monkeypatch.setenv("KAFKA_HOME", str(BESIDE_THE_REPOSITORY))
    require("kafka")
    settings = settings_for(tmp_path)
    for _ in range(2):
        command = broker_command(settings)
        log = (tmp_path / "kafka.log").open("ab")
        process = subprocess.Popen(command.argv, env=command.env, stdout=log, stderr=log)
        try:
            wait_for(lambda: broker_is_ready(settings), what=f"Kafka, see {log.name}")
        finally:
            process.terminate()
            process.wait(60)
            log.close()
