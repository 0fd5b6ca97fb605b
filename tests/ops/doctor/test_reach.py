"""What a wheel reaches: asked as it would be used, and told apart by what is wrong with it."""

import asyncio
import base64
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.infra import wiring
from deltawheel.infra.credentials import BROKER_PASSWORD_VARIABLE
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.stub_model_server import ANSWERS, StubModelServer
from deltawheel.ops.doctor.findings import Check, Finding, Level, Site
from deltawheel.ops.doctor.reach import (
    check_broker,
    check_models,
    check_registry,
    check_servers,
    check_store,
)
from deltawheel.ops.supervisor.runfile import RunRecord
from tests.components import require
from tests.infra.test_brokers import a_kafka
from tests.infra.test_bus_contract import a_broker, find_kafka
from tests.ops.doctor.sites import KAFKA_IMPORTED, a_site, a_store, examined, listed, only
from tests.secured_kafka import PASSWORD, USER, secured_kafka

pytestmark = KAFKA_IMPORTED


def a_run_of(settings: Settings) -> RunRecord:
    return RunRecord.begin(settings, started_at=wiring.system_clock().now())


@contextmanager
def a_silent_listener() -> Iterator[int]:
    """Take every connection, read it, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@asynccontextmanager
async def a_web_server(path: str, *, content: Any, authorization: str = "") -> AsyncIterator[str]:
    """Answer one path, to whom shows that header; yield the server's address."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "") != authorization:
            return web.Response(status=401)
        return web.json_response(content)

    application = web.Application()
    application.add_routes([web.get(path, answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def asked(check: Check, site: Site) -> list[Finding]:
    """Run a check whose other side lives in this test's event loop."""
    return await asyncio.to_thread(examined, check, site)


# The store


def test_store_that_is_not_there_yet_is_fine_and_stays_so(tmp_path: Path) -> None:
    found = only(check_store, a_site(tmp_path / "home"))
    assert found.level is Level.OK
    assert found.found.endswith("none yet, the first `deltawheel up` makes it")
    assert listed(tmp_path) == []


def test_own_postgres_of_a_stopped_wheel_is_fine(tmp_path: Path) -> None:
    require("postgres")
    found = only(check_store, a_site(tmp_path / "home", store={"kind": "local-postgres"}))
    assert found.level is Level.OK
    assert found.found.endswith("`deltawheel up` starts it")
    assert listed(tmp_path) == []


def test_store_is_opened_and_not_changed(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    a_store(site)
    before = listed(tmp_path)
    found = only(check_store, site)
    assert found.level is Level.OK
    assert found.found.endswith("its schema is this version's")
    assert listed(tmp_path) == before


def test_store_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    a_store(site).write_bytes(b"no database " * 1_000)
    found = only(check_store, site)
    assert found.level is Level.FAILURE
    assert found.found.endswith("store.db is not a database")
    assert found.todo == "move it away, or set store.url to another file"


def test_store_of_a_newer_version_is_a_failure(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    with closing(sqlite3.connect(a_store(site))) as file, file:
        assert file.execute("UPDATE schema_revision SET version_num = '9999'").rowcount == 1
    found = only(check_store, site)
    assert found.level is Level.FAILURE
    assert "has schema 9999" in found.found
    assert str(found.todo).startswith("install the deltawheel that made it")


def test_store_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/store.db"
    found = only(check_store, a_site(tmp_path, store={"url": url}))
    assert found.level is Level.FAILURE
    assert found.found == f"{tmp_path}/file is no folder"


# The broker


def test_embedded_broker_is_named_with_its_version(tmp_path: Path) -> None:
    found = only(check_broker, a_site(tmp_path / "home"))
    assert found.level is Level.OK
    assert found.found.startswith("embedded, tansu ")
    assert not (tmp_path / "home").exists()


def test_broker_of_the_running_wheel_that_is_silent_is_a_failure(tmp_path: Path) -> None:
    site = a_site(tmp_path, broker={"port": find_free_port()})
    found = only(check_broker, replace(site, run=a_run_of(site.settings)))
    assert found.level is Level.FAILURE
    assert f"broker at 127.0.0.1:{site.settings.broker.port} does not answer" in found.found


def local_kafka(site_home: Path) -> Site:
    return a_site(site_home, broker={"kind": BrokerKind.LOCAL_KAFKA})


def a_java(folder: Path, version: str) -> Path:
    """Make a JAVA_HOME whose Java says to be of this version."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return folder


def test_local_kafka_without_kafka_home_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    found = only(check_broker, local_kafka(tmp_path / "home"))
    assert found.level is Level.FAILURE
    assert "KAFKA_HOME names no unpacked Apache Kafka" in found.found
    assert str(found.todo).startswith("download one")


@pytest.mark.parametrize(
    ("version", "level", "said"),
    [
        ("17.0.1", Level.OK, "Java 17"),
        ("21", Level.OK, "Java 21"),
        ("11.0.2", Level.FAILURE, "is Java 11"),
        ("1.8.0_292", Level.FAILURE, "is Java 8"),
        ("unheard of", Level.FAILURE, "is no Java that says its version"),
    ],
)
def test_local_kafka_needs_java_17(
    version: str, level: Level, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(a_kafka(tmp_path / "kafka")))
    monkeypatch.setenv("JAVA_HOME", str(a_java(tmp_path / "java", version)))
    found = only(check_broker, local_kafka(tmp_path / "home"))
    assert found.level is level
    assert said in found.found
    assert not (tmp_path / "home").exists()


def remote(home: Path, *ports: int) -> Site:
    bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
    return a_site(home, broker={"kind": BrokerKind.KAFKA, "bootstrap": bootstrap})


def test_broker_that_is_not_there_says_which_address_and_why(tmp_path: Path) -> None:
    port = find_free_port()
    found = only(check_broker, remote(tmp_path, port))
    assert found.level is Level.FAILURE
    assert found.found == f"127.0.0.1:{port}: Connection refused"
    assert found.todo == "start the broker, or correct broker.bootstrap"


def test_listener_that_speaks_no_plain_kafka_is_told_with_both_causes(tmp_path: Path) -> None:
    with a_silent_listener() as port:
        found = only(check_broker, remote(tmp_path, port))
    assert found.level is Level.FAILURE
    assert "takes connections, but" in found.found
    assert "Unable to bootstrap" in found.found
    assert (
        "no Kafka listens there, or its listener asks for more than broker.security" in found.found
    )
    assert str(found.todo).startswith(
        "name a listener in broker.bootstrap that speaks this protocol"
    )


@pytest.mark.integration
def test_broker_elsewhere_is_really_asked_for_its_topics(tmp_path: Path) -> None:
    own = a_site(tmp_path, broker={"port": find_free_port()}).settings
    port, dead = own.broker.port, find_free_port()
    with a_broker(own):
        empty = only(check_broker, remote(tmp_path, port))
        wiring.make_topics(own)
        full = only(check_broker, remote(tmp_path, port))
        half = only(check_broker, remote(tmp_path, port, dead))
        running = only(check_broker, replace(a_site(tmp_path), run=a_run_of(own)))
    assert empty.found.endswith("0 of the wheel's 6 topics are there")
    assert full.found.endswith("6 of the wheel's 6 topics are there")
    assert {empty.level, full.level, running.level} == {Level.OK}
    assert half.level is Level.WARNING
    assert f"127.0.0.1:{dead} does not (Connection refused)" in half.found
    assert running.found == f"embedded broker at 127.0.0.1:{port} answers"


def test_broker_elsewhere_in_the_open_is_a_warning(tmp_path: Path) -> None:
    found = examined(
        check_broker,
        a_site(tmp_path, broker={"kind": BrokerKind.KAFKA, "bootstrap": "kafka.invalid:9092"}),
    )
    assert [one.level for one in found] == [Level.WARNING, Level.FAILURE]
    assert (
        found[0].found
        == "what goes to kafka.invalid:9092 can be read on the way (protocol plaintext)"
    )
    assert "sasl-ssl" in str(found[0].todo)


def test_missing_password_of_the_broker_is_a_failure_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BROKER_PASSWORD_VARIABLE, raising=False)
    security = {"protocol": "sasl-ssl", "mechanism": "PLAIN", "username": "me"}
    with a_silent_listener() as port:
        broker = {"kind": "kafka", "bootstrap": f"127.0.0.1:{port}", "security": security}
        found = only(check_broker, a_site(tmp_path, broker=broker))
    assert found.level is Level.FAILURE
    assert f"the environment variable {BROKER_PASSWORD_VARIABLE} is not set" in found.found
    assert found.todo == "set it to the password of user 'me'"


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_tls_and_password_and_rights_are_really_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_kafka(monkeypatch)
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, PASSWORD)
    folder = tmp_path / "kafka"
    folder.mkdir()
    with secured_kafka(folder) as kafka:

        def site(**security: str) -> Site:
            broker = kafka.settings(**security)
            return replace(a_site(tmp_path, wheel="w", broker=broker), timeout_s=4)

        answering, topics, group = examined(check_broker, site())
        assert answering.found.startswith(
            f"{kafka.sasl} answers over sasl-ssl as {USER} (SCRAM-SHA-5"
        )
        assert f"lets user '{USER}' not use w.dead-letters, " in topics.found
        assert str(topics.todo).startswith(
            "grant READ, WRITE and DESCRIBE on topics with the prefix"
        )
        assert f"lets user '{USER}' not join w.generation" in group.found
        assert {topics.level, group.level} == {Level.FAILURE}
        kafka.grant(USER, wheel="w")
        assert only(check_broker, site()).level is Level.OK
        untrusted = only(check_broker, site(ca_file=str(folder / "other-ca.pem")))
        assert "is not trusted by" in untrusted.found
        assert untrusted.todo == "let broker.security.ca_file name the authority that has signed it"
        monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, "wrong-one")
        refused = only(check_broker, site())
        assert f"refuses user '{USER}' with SCRAM-SHA-512" in refused.found
        assert str(refused.todo).startswith(
            f"put the right password into {BROKER_PASSWORD_VARIABLE}"
        )
        assert "wrong-one" not in refused.found


# Model servers


async def test_server_of_the_running_wheel_is_asked(tmp_path: Path) -> None:
    require("vllm")
    async with StubModelServer({}).running() as url:
        ports = (int(url.removesuffix("/v1").rpartition(":")[2]), find_free_port())
        servers = [{"name": name, "port": port} for name, port in zip("ab", ports, strict=True)]
        members = [{"name": name, "server": name} for name in "ab"]
        site = a_site(tmp_path, servers=servers, generators=members, training={"is_enabled": False})
        up, down = await asked(check_servers, replace(site, run=a_run_of(site.settings)))
        [stopped] = await asked(check_servers, site)
    assert (up.level, up.found) == (Level.OK, f"a at {url} answers")
    assert down.level is Level.FAILURE
    assert down.found == f"b at http://127.0.0.1:{ports[1]}/v1 does not answer"
    assert stopped.found.endswith("would serve a, b")


def test_servers_without_vllm_are_a_failure(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["vllm"] = None
from pathlib import Path
from deltawheel.ops.doctor.reach import check_servers
from tests.ops.doctor.sites import a_site, only
print(only(check_servers, a_site(Path({str(tmp_path)!r}))))
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert "failure" in done.stdout
    assert "vLLM is not installed in this environment" in done.stdout


def test_pool_elsewhere_asks_for_no_server(tmp_path: Path) -> None:
    assert only(check_servers, a_site(tmp_path, **pool("http://h/v1"))).found == "none asked for"


def pool(endpoint: str, *, model: str = "doubles", **keys: str) -> dict[str, Any]:
    members = [
        {"name": name, "endpoint": endpoint, "model": wanted, "revision": "r1", **keys}
        for name, wanted in (("a", "doubles"), ("b", model))
    ]
    return {"servers": [], "training": {"is_enabled": False}, "generators": members}


async def test_endpoint_that_serves_the_model_is_fine(tmp_path: Path) -> None:
    async with StubModelServer({"doubles": ANSWERS["doubles"]}).running() as url:
        found = await asked(check_models, a_site(tmp_path, **pool(url)))
    assert [one.level for one in found] == [Level.OK, Level.OK]
    assert found[0].found == f"a: {url} answers and serves doubles"


async def test_endpoint_that_serves_other_models_names_them(tmp_path: Path) -> None:
    async with StubModelServer({"doubles": ANSWERS["doubles"]}).running() as url:
        good, bad = await asked(check_models, a_site(tmp_path, **pool(url, model="gone")))
    assert good.level is Level.OK
    assert bad.level is Level.FAILURE
    assert bad.found == f"b: {url} serves doubles, but not gone"
    assert bad.todo == "set generators.b.model to what is served, or serve it"


async def test_endpoint_that_lists_no_models_is_in_doubt(tmp_path: Path) -> None:
    async with StubModelServer({"doubles": ANSWERS["doubles"]}).running() as url:
        base = url.removesuffix("/v1")
        first, _ = await asked(check_models, a_site(tmp_path, **pool(base)))
    assert first.level is Level.WARNING
    assert first.todo == "make sure that generators.a.endpoint ends as in http://host:8000/v1"


async def test_endpoint_that_is_no_model_server_is_a_failure(tmp_path: Path) -> None:
    async with a_web_server("/models", content={"hello": "world"}) as url:
        first, _ = await asked(check_models, a_site(tmp_path, **pool(url)))
    assert first.level is Level.FAILURE
    assert first.found.endswith("answers 200, but not with a list of models")


def test_endpoint_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{find_free_port()}/v1"
    first, _ = examined(check_models, a_site(tmp_path, **pool(url)))
    assert first.level is Level.FAILURE
    assert first.found.startswith(f"a: {url}/models cannot be reached: ")
    assert first.todo == "start that server, or correct generators.a.endpoint"


def test_endpoint_that_is_silent_is_waited_for_no_longer_than_the_site_says(tmp_path: Path) -> None:
    with a_silent_listener() as port:
        found = examined(check_models, a_site(tmp_path, **pool(f"http://127.0.0.1:{port}/v1")))
    assert all(one.found.endswith("did not answer within 1 s") for one in found)
    assert len(found) == 2


async def test_key_is_tried_and_a_refused_one_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"data": [{"id": "doubles"}]}
    async with a_web_server("/models", content=models, authorization="Bearer right") as url:
        keyed = a_site(tmp_path, **pool(url, api_key_env="KEY_OF_TEST"))
        monkeypatch.setenv("KEY_OF_TEST", "right")
        accepted, _ = await asked(check_models, keyed)
        monkeypatch.setenv("KEY_OF_TEST", "wrong")
        refused, _ = await asked(check_models, keyed)
        monkeypatch.delenv("KEY_OF_TEST")
        missing, _ = await asked(check_models, keyed)
        unkeyed, _ = await asked(check_models, a_site(tmp_path, **pool(url)))
    assert accepted.level is Level.OK
    assert {one.level for one in (refused, missing, unkeyed)} == {Level.FAILURE}
    assert "refuses the key (401)" in refused.found
    assert refused.todo == "put a valid key into KEY_OF_TEST"
    assert "the environment variable KEY_OF_TEST is not set" in missing.found
    assert "refuses to answer without a key (401)" in unkeyed.found
    assert unkeyed.todo == "name one in generators.a.api_key_env"
    assert "wrong" not in refused.found


# The registry


def test_local_registry_is_looked_at_and_not_made(tmp_path: Path) -> None:
    found = only(check_registry, a_site(tmp_path / "home"))
    assert found.level is Level.OK
    assert found.found.startswith(f"{tmp_path}/home/registry can be made")
    assert listed(tmp_path) == []


def test_registry_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    uri = f"http://u:secret@127.0.0.1:{find_free_port()}"
    found = only(check_registry, a_site(tmp_path, registry={"uri": uri}))
    assert found.level is Level.FAILURE
    assert "cannot be reached" in found.found
    assert "secret" not in found.found
    assert found.todo == "start the MLflow server, or correct registry.uri"


async def test_registry_gets_the_credentials_of_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    basic = f"Basic {base64.b64encode(b'u:right').decode()}"
    route = "/api/2.0/mlflow/registered-models/search"
    async with a_web_server(route, content={}, authorization=basic) as url:
        host = url.removeprefix("http://")
        sites = [
            a_site(tmp_path, registry={"uri": f"http://u:{password}@{host}"})
            for password in ("right", "wrong")
        ]
        [accepted] = await asked(check_registry, sites[0])
        [refused] = await asked(check_registry, sites[1])
        [elsewhere] = await asked(check_registry, a_site(tmp_path, registry={"uri": f"{url}/x"}))
    assert accepted.level is Level.OK
    assert accepted.found == f"MLflow at http://u:***@{host} answers"
    assert refused.level is Level.FAILURE
    assert "refuses the credentials (401)" in refused.found
    assert elsewhere.found.endswith("answers 404, but not as MLflow does")


def test_registry_that_only_mlflow_can_ask_is_a_warning(tmp_path: Path) -> None:
    uri = "postgresql://u:secret@h/mlflow"
    found = only(check_registry, a_site(tmp_path, registry={"uri": uri}))
    assert found.level is Level.WARNING
    assert "secret" not in found.found
