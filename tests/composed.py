"""The services of `infra/compose` without containers: what its file gives them, run here."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from deltawheel.infra.listening import find_free_port
from tests.components import ROOT, kafka_home
from tests.postgres import PostgresServer, postgres_server, programs
from tests.waiting import wait_for

FOLDER = ROOT / "infra" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = {"POSTGRES_PASSWORD": "first1", "WHEEL_DB_PASSWORD": "s3cond", "MLFLOW_DB_PASSWORD": "3"}
NO_PROPERTY = {"KAFKA_HEAP_OPTS"}
"""Variables that the image hands to Java instead of to the broker."""

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")


def interpolated(value: Any, variables: Mapping[str, str]) -> str:
    """Fill in variables as Compose does.

    Raises:
        LookupError: one that must be set is not.
    """

    def fill(found: re.Match[str]) -> str:
        if given := variables.get(found["name"]):
            return given
        if found["kind"] == "-":
            return found["text"]
        raise LookupError(f"{found['name']} {found['text']}")

    return VARIABLE.sub(fill, str(value))


def environment_of(name: str, **variables: str) -> dict[str, str]:
    given = SERVICES[name].get("environment", {})
    return {key: interpolated(value, {**SECRETS, **variables}) for key, value in given.items()}


def properties(port: int, controller: int, data: Path) -> dict[str, str]:
    """Return the broker's properties as the image makes them of the environment."""
    moved = {"/var/lib/kafka/data": str(data), ":29093": f":{controller}"}
    found = {}
    for name, value in environment_of("kafka", KAFKA_PORT=str(port)).items():
        if name.startswith("KAFKA_") and name not in NO_PROPERTY:
            for here, there in moved.items():
                value = value.replace(here, there)
            found[name.removeprefix("KAFKA_").lower().replace("_", ".")] = value
    return found


@contextmanager
def a_broker(folder: Path) -> Iterator[int]:
    """Run Kafka with the properties of the file; yield its port."""
    home, port = kafka_home(), find_free_port()
    assert home is not None, "ask components.require('kafka') first"
    file = folder / "server.properties"
    lines = properties(port, find_free_port(), folder / "data").items()
    file.write_text("".join(f"{name}={value}\n" for name, value in lines))
    cluster = ("-t", environment_of("kafka")["CLUSTER_ID"])
    storage = str(home / "bin" / "kafka-storage.sh")
    subprocess.run([storage, "format", *cluster, "-c", file], check=True, capture_output=True)
    start = str(home / "bin" / "kafka-server-start.sh")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([start, file], stdout=log, stderr=log)
    try:
        wait_for(lambda: is_open(port), what="the broker listens")
        yield port
    finally:
        process.terminate()
        process.wait(60)


def is_open(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


PORT = "--port=5000"
ARTIFACTS = "--artifacts-destination=/artifacts"


@contextmanager
def some_databases() -> Iterator[PostgresServer]:
    """Run a PostgreSQL in which the script of the file has made its databases."""
    installed = programs()
    assert installed is not None, "ask components.require('postgres') first"
    with postgres_server() as server:
        environment = {
            "PATH": f"{installed}:{os.environ['PATH']}",
            "PGHOST": str(server.folder),
            **environment_of("postgres"),
        }
        script = FOLDER / "postgres-databases.sh"
        subprocess.run(["sh", script], env=environment, check=True, capture_output=True, text=True)
        yield server


@contextmanager
def an_mlflow(folder: Path, databases: PostgresServer) -> Iterator[tuple[str, int]]:
    """Run MLflow with the command of the file; yield its address and its process id."""
    port = find_free_port()
    moved = {PORT: f"--port={port}", ARTIFACTS: f"--artifacts-destination={folder / 'artifacts'}"}
    command = [moved.get(word, word) for word in SERVICES["mlflow"]["command"]]
    assert PORT in SERVICES["mlflow"]["command"]
    assert ARTIFACTS in SERVICES["mlflow"]["command"]
    program = Path(sys.executable).with_name(command[0])
    environment = environment_of("mlflow")
    address = environment["MLFLOW_BACKEND_STORE_URI"]
    assert address.endswith("@postgres:5432/mlflow")
    environment["MLFLOW_BACKEND_STORE_URI"] = (
        f"{address.removesuffix('postgres:5432/mlflow')}/mlflow?host={databases.folder}"
    )
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        wait_for(lambda: is_healthy(port, process, folder / "log"), timeout_s=300, what="MLflow")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(60)


def is_healthy(port: int, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Ask as the container's health check does."""
    assert process.poll() is None, log.read_text()
    if not is_open(port):
        return False
    check = SERVICES["mlflow"]["healthcheck"]["test"][3].replace(":5000", f":{port}")
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False)
    return done.returncode == 0
