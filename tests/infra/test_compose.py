"""The services of `infra/compose`: all that can be shown of them without containers.

Kafka, PostgreSQL and MLflow are started here with what the file gives them, on ports and folders
of the test.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from deltawheel.contracts.addresses import host_port
from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import load_settings
from deltawheel.infra.store.store import SqlStore
from tests.components import ROOT, kafka_home, require
from tests.composed import (
    COMPOSE,
    FOLDER,
    SECRETS,
    SERVICES,
    VARIABLE,
    a_broker,
    an_mlflow,
    environment_of,
    interpolated,
    properties,
    some_databases,
)
from tests.postgres import PostgresServer
from tests.records import a_prompt
from tests.waiting import wait_for

every_service = pytest.mark.parametrize("name", SERVICES)


# What the file says


def test_there_are_a_broker_a_database_and_a_registry() -> None:
    assert SERVICES.keys() == {"kafka", "postgres", "mlflow"}


@every_service
def test_image_has_an_exact_version_and_names_no_host(name: str) -> None:
    repository, _, version = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", version)
    assert "." not in repository


@every_service
def test_service_is_watched_restarted_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@every_service
def test_port_is_published_on_loopback_only(name: str) -> None:
    [port] = SERVICES[name]["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", interpolated(port, {}))


@every_service
def test_data_lies_in_a_named_volume(name: str) -> None:
    sources = {volume.split(":")[0] for volume in SERVICES[name]["volumes"]}
    assert sources & COMPOSE["volumes"].keys()
    for source in sources - COMPOSE["volumes"].keys():
        assert (FOLDER / source).is_file()


def test_every_secret_must_be_set_and_the_example_names_it() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    used = {found["name"]: found for found in VARIABLE.finditer(text)}
    required = {name for name, found in used.items() if found["kind"] == "?"}
    assert required == SECRETS.keys()
    assert {name for name in used if "PASSWORD" in name} == required
    example = (FOLDER / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == required
    assert set(re.findall(r"^# (\w+)=\d+$", example, re.MULTILINE)) == used.keys() - required
    with pytest.raises(LookupError, match=r"PASSWORD is not set; copy \.env\.example to \.env"):
        interpolated(text, {})


def test_file_with_the_secrets_is_ignored_by_git() -> None:
    assert "/infra/compose/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_settings_beside_it_name_its_ports_and_users_and_hold_no_password() -> None:
    settings = load_settings(FOLDER / "deltawheel.yaml")
    published = {
        name: interpolated(service["ports"][0], {}).split(":")[1]
        for name, service in SERVICES.items()
    }
    assert settings.broker.kind is BrokerKind.KAFKA
    assert settings.broker.bootstrap == f"127.0.0.1:{published['kafka']}"
    address = f"127.0.0.1:{published['postgres']}"
    assert settings.store_url == f"postgresql://deltawheel@{address}/deltawheel"
    assert settings.registry.uri == f"http://127.0.0.1:{published['mlflow']}"
    limit = environment_of("kafka")["KAFKA_MESSAGE_MAX_BYTES"]
    assert int(limit) == settings.broker.max_message_bytes


def test_mlflow_image_has_the_version_that_is_installed_here() -> None:
    from importlib.metadata import version

    tag = SERVICES["mlflow"]["image"].partition(":")[2]
    assert f'"mlflow=={tag}"' in (FOLDER / "mlflow.Dockerfile").read_text()
    assert tag.split(".")[:2] == version("mlflow").split(".")[:2]


# What it starts


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_kafka_starts_with_exactly_these_properties_and_takes_our_topics(tmp_path: Path) -> None:
    require("kafka")
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

    with a_broker(tmp_path) as port:
        address = host_port("127.0.0.1", port)
        broker = load_settings(FOLDER / "deltawheel.yaml").broker
        settings = Settings(broker=broker.model_copy(update={"bootstrap": address}))
        wiring.make_topics(settings)
        with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
            topics = {topic.of("default") for topic in Topic}
            wait_for(lambda: topics <= set(admin.list_topics()), what="the topics")
            broker_1 = ConfigResource(ConfigResourceType.BROKER, "1", None)
            described = admin.describe_configs([broker_1], config_filter="all")["broker"]["1"]
        home = kafka_home()
        check = interpolated(SERVICES["kafka"]["healthcheck"]["test"][1], {"KAFKA_PORT": str(port)})
        said = subprocess.run(
            check.replace("/opt/kafka", shlex.quote(str(home))),
            shell=True,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "default.prompts" in said.stdout
    for name, value in properties(port, 0, tmp_path / "data").items():
        assert described[name]["config_type"] != "UNKNOWN", f"Kafka knows no property {name}"
        if "listeners" not in name and "voters" not in name:
            assert described[name]["value"] == value


@pytest.fixture(scope="module")
def databases() -> Iterator[PostgresServer]:
    require("postgres")
    with some_databases() as server:
        yield server


@pytest.mark.integration
def test_wheel_and_mlflow_each_own_a_database_behind_a_password(databases: PostgresServer) -> None:
    with psycopg.connect(f"host={databases.folder} user=postgres dbname=postgres") as connection:
        roles: dict[str, str] = dict(
            connection.execute(
                "SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin AND NOT rolsuper"
            ).fetchall()
        )
        owners: dict[str, str] = dict(
            connection.execute(
                "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname = ANY(%s)",
                [["deltawheel", "mlflow"]],
            ).fetchall()
        )
    assert roles.keys() == {"deltawheel", "mlflow"}
    assert all(password.startswith("SCRAM-SHA-256$") for password in roles.values())
    assert owners == {"deltawheel": "deltawheel", "mlflow": "mlflow"}
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(f"host={databases.folder} user=mlflow dbname=deltawheel")


@pytest.mark.integration
def test_wheel_keeps_its_store_there(databases: PostgresServer) -> None:
    url = f"postgresql://deltawheel@/deltawheel?host={databases.folder}"
    with closing(SqlStore(url, wheel="test")) as store:
        store.add_prompts([a_prompt()])
        assert store.progress().prompts == 1


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_mlflow_starts_with_exactly_this_command_and_keeps_artifacts_and_aliases(
    tmp_path: Path, databases: PostgresServer
) -> None:
    with an_mlflow(tmp_path, databases) as (uri, pid):
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.create_experiment("of a test")
        run = client.create_run(experiment)
        file = tmp_path / "weights.safetensors"
        file.write_bytes(b"weights")
        client.log_artifact(run.info.run_id, str(file))
        client.create_registered_model("deltawheel-default")
        source = f"{run.info.artifact_uri}/weights.safetensors"
        version = client.create_model_version("deltawheel-default", source, run.info.run_id)
        client.set_registered_model_alias("deltawheel-default", "champion", version.version)
        found = client.get_model_version_by_alias("deltawheel-default", "champion")
        assert found.version == version.version
        server = psutil.Process(pid)
        family = [server, *server.children(recursive=True)]
        taken = sum(process.memory_info().rss for process in family)
    assert taken < 0.75 * int(SERVICES["mlflow"]["mem_limit"].removesuffix("g")) * 2**30
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    [kept] = (tmp_path / "artifacts").rglob("weights.safetensors")
    assert kept.read_bytes() == b"weights"
