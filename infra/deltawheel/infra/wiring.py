"""The one place that calls adapters' constructors. Each is imported where it is built.

So a process loads only the vendors that it uses, and another adapter is one line here.
"""

import hashlib
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deltawheel.contracts.addresses import host_port
from deltawheel.contracts.settings import (
    SANDBOX,
    BrokerKind,
    JudgeKind,
    Settings,
    StoreKind,
)

if TYPE_CHECKING:
    from deltawheel.contracts.anchors import AnchorCase
    from deltawheel.contracts.clock import Clock, Random
    from deltawheel.contracts.ports import (
        Consumer,
        Failpoints,
        Judge,
        PairChecks,
        Producer,
        Registry,
        Telemetry,
        UnloadingChatModel,
        Verifier,
    )
    from deltawheel.contracts.probe import HeldOut
    from deltawheel.contracts.store import Store
    from deltawheel.contracts.topic_audit import TopicReads
    from deltawheel.contracts.topics import Topic
    from deltawheel.infra.gateway_client import GatewayClient
    from deltawheel.infra.judges.llm import JudgeEndpoint, LlmJudge
    from deltawheel.infra.memory_bus import MemoryBus
    from deltawheel.infra.model_client import Watch
    from deltawheel.infra.processes import Command
    from deltawheel.infra.simulated.seeded_random import SeededRandom
    from deltawheel.infra.simulated.store import SimulatedStore
    from deltawheel.infra.store.engine import Database

__all__ = [
    "anchor_cases",
    "bootstrap_address",
    "broker_command",
    "broker_is_ready",
    "changing_schema",
    "check_certificates",
    "database_command",
    "database_is_ready",
    "failpoints",
    "judge_on_trial",
    "judge_revision",
    "load_settings",
    "make_topics",
    "memory_bus",
    "open_consumer",
    "open_gateway",
    "open_held_out",
    "open_judge",
    "open_models",
    "open_pair_checks",
    "open_probe_verifier",
    "open_producer",
    "open_registry",
    "open_store",
    "open_telemetry",
    "reading",
    "reading_topics",
    "seeded_random",
    "serve_telemetry",
    "simulated_store",
    "system_clock",
    "system_random",
]


def load_settings(path: Path) -> Settings:
    """Read a settings file."""
    from deltawheel.infra.settings_file import load_settings as load

    return load(path)


def system_clock() -> "Clock":
    """Return the machine's clock."""
    from deltawheel.infra.clock import SystemClock

    return SystemClock()


def system_random() -> "Random":
    """Return the machine's randomness."""
    from deltawheel.infra.clock import SystemRandom

    return SystemRandom()


def open_store(settings: Settings) -> "Store":
    """Open the store, making what is missing, for the processes of a wheel that runs.

    Raises:
        RetryLaterError: it is away. A database of the wheel's own that has died counts as that and
            never as stopped: the supervisor starts it again.
    """
    from deltawheel.contracts.errors import RetryLaterError
    from deltawheel.infra.local_postgres import StoppedStoreError
    from deltawheel.infra.store.store import SqlStore

    try:
        url = _store_url(settings)
    except StoppedStoreError as error:
        raise RetryLaterError(f"the wheel's own PostgreSQL is away: {error}") from error
    return SqlStore(url, wheel=settings.wheel)


@contextmanager
def reading(settings: Settings) -> "Iterator[Store]":
    """Open the store of a wheel that has run, for commands that only read."""
    from deltawheel.infra.store.store import SqlStore

    store = SqlStore.open_existing(_store_url(settings), wheel=settings.wheel)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def changing_schema(settings: Settings, *, must_exist: bool) -> "Iterator[Database]":
    """Open the store's database, whatever schema it has, for the command that changes it."""
    from deltawheel.infra.store.engine import Database

    database = Database(_store_url(settings), must_exist=must_exist, may_differ=True)
    try:
        yield database
    finally:
        database.close()


def _store_url(settings: Settings) -> str:
    if settings.store.kind is not StoreKind.LOCAL_POSTGRES:
        return settings.store_url
    from deltawheel.infra import local_postgres

    return local_postgres.store_url(settings)


def database_command(settings: Settings) -> "Command":
    """Return how to start the wheel's own PostgreSQL."""
    from deltawheel.infra import local_postgres

    return local_postgres.postgres_command(settings)


def database_is_ready(settings: Settings) -> bool:
    """Tell whether the wheel's own PostgreSQL answers."""
    from deltawheel.infra import local_postgres

    return local_postgres.is_ready(settings)


def bootstrap_address(settings: Settings) -> str:
    """Return where clients of the broker connect first."""
    broker = settings.broker
    if broker.kind is BrokerKind.KAFKA and broker.bootstrap:
        return broker.bootstrap
    return host_port(broker.host, broker.port)


def make_topics(settings: Settings) -> None:
    """Create the topics that are missing."""
    from deltawheel.infra import kafka_bus

    kafka_bus.make_topics(bootstrap_address(settings), wheel=settings.wheel, broker=settings.broker)


def check_certificates(settings: Settings) -> None:
    """Read the certificates for the broker, which raises a ConfigError if one cannot be used."""
    from deltawheel.infra.kafka_access import tls_context

    tls_context(settings.broker.security)


def broker_command(settings: Settings) -> "Command":
    """Return how to start the wheel's own broker."""
    from deltawheel.infra import brokers

    return brokers.broker_command(settings)


def broker_is_ready(settings: Settings) -> bool:
    """Tell whether the wheel's own broker answers."""
    from deltawheel.infra import brokers

    return brokers.broker_is_ready(settings)


def open_consumer(settings: Settings, *, group: str, topics: Sequence["Topic"]) -> "Consumer":
    """Join a consumer group of the wheel's."""
    from deltawheel.infra.kafka_bus import KafkaBusConsumer

    return KafkaBusConsumer(
        bootstrap_address(settings),
        group=f"{settings.wheel}.{group}",
        topics=[topic.of(settings.wheel) for topic in topics],
        broker=settings.broker,
        runtime=settings.runtime,
        instance_id=_instance_id(settings, group) if settings.runtime.static_membership else None,
    )


def _instance_id(settings: Settings, group: str) -> str:
    """Return the static member that a service of this home on this host is, whenever it runs.

    A supervisor runs one process of each service, so no two at the same time share the name.
    """
    home = hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:8]
    host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
    return f"{group}.{host[:150]}.{home}"


def open_producer(settings: Settings, *, timeout_s: float = 30.0) -> "Producer":
    """Connect a producer that waits so long for an acknowledgement."""
    from deltawheel.infra.kafka_bus import KafkaBusProducer

    return KafkaBusProducer(
        bootstrap_address(settings), broker=settings.broker, timeout_s=timeout_s
    )


@contextmanager
def reading_topics(settings: Settings, *, timeout_s: float = 5.0) -> "Iterator[TopicReads]":
    """Read topics beside all consumer groups, waiting so long for each of the broker's answers."""
    from deltawheel.infra.topic_reader import KafkaTopicReader

    reader = KafkaTopicReader(
        bootstrap_address(settings), broker=settings.broker, timeout_s=timeout_s
    )
    try:
        yield reader
    finally:
        reader.close()


def memory_bus(*, wheel: str, partitions: int) -> "MemoryBus":
    """Make a broker in this process's memory, for simulations."""
    from deltawheel.infra.memory_bus import MemoryBus

    return MemoryBus(wheel=wheel, partitions=partitions)


def simulated_store(*, wheel: str) -> "SimulatedStore":
    """Make a store in this process's memory, for simulations."""
    from deltawheel.infra.simulated.store import SimulatedStore

    return SimulatedStore(wheel=wheel)


def seeded_random(seed: int | str) -> "SeededRandom":
    """Return randomness that a simulation can play again."""
    from deltawheel.infra.simulated.seeded_random import SeededRandom

    return SeededRandom(seed)


def open_telemetry(settings: Settings) -> "Telemetry":
    """Make the metrics of one process of the wheel."""
    from deltawheel.infra.telemetry import PrometheusTelemetry

    return PrometheusTelemetry(settings.wheel)


def serve_telemetry(telemetry: "Telemetry", is_ready: Callable[[], bool]) -> int:
    """Serve metrics and health on a free port of loopback; return the port."""
    from deltawheel.infra.telemetry import PrometheusTelemetry, serve

    if not isinstance(telemetry, PrometheusTelemetry):
        raise TypeError(f"only Prometheus' metrics can be served, not {type(telemetry).__name__}")
    return serve(telemetry, is_ready)


def failpoints() -> "Failpoints":
    """Return the failpoints that the environment arms; none, by default."""
    from deltawheel.infra.failpoints import FileFailpoints

    return FileFailpoints(os.environ)


def open_gateway(url: str) -> "GatewayClient":
    """Build the client of a gateway that runs."""
    from deltawheel.infra.gateway_client import GatewayClient

    return GatewayClient(url)


def open_judge(
    settings: Settings,
    telemetry: "Telemetry",
    random: "Random",
    *,
    around: "Callable[[Judge], Judge] | None" = None,
) -> "Judge":
    """Build the judge that the settings name, with the faults planted in it, if any.

    `around` is put around each model that judges, and around no program.

    Raises:
        ConfigError: a model's key or weights are missing.
    """
    models: Sequence[Judge] = _language_models(settings, telemetry, random)
    return _panel(settings, [around(model) for model in models] if around else models)


def _panel(settings: Settings, models: Sequence["Judge"]) -> "Judge":
    """Make one judge of the models that judge, with the verifier beside them, or of a program."""
    if not models:
        return _program(settings)
    from deltawheel.infra.judges.jury import Jury
    from deltawheel.infra.judges.verified import VerifiedJudge
    from deltawheel.infra.verifiers import open_verifier

    jury = Jury(models, settings.judge.jury, system_clock()) if len(models) > 1 else models[0]
    return VerifiedJudge(jury, open_verifier(settings.judge))


def _language_models(
    settings: Settings,
    telemetry: "Telemetry",
    random: "Random",
    watch: "Watch | None" = None,
) -> "list[LlmJudge]":
    if not settings.judge.models:
        return []
    from deltawheel.infra.judges.llm import LlmJudge

    return [
        LlmJudge(
            model,
            endpoint=_judge_endpoint(settings, key),
            telemetry=telemetry,
            random=random,
            key=key,
            watch=watch,
        )
        for key, model in settings.judge.models.items()
    ]


def _program(settings: Settings) -> "Judge":
    if settings.judge.kind is JudgeKind.EXACT_MATCH:
        from deltawheel.infra.judges.exact_match import ExactMatchJudge

        return ExactMatchJudge(settings.judge)
    from deltawheel.infra.judges.sandbox import SandboxJudge

    return SandboxJudge(settings.judge)


@asynccontextmanager
async def judge_on_trial(settings: Settings, watch: "Watch") -> AsyncIterator["Judge"]:
    """Open the judge for a while, and watch what its models are asked and answer.

    Raises:
        ConfigError: a model's key or weights are missing.
    """
    models = _language_models(settings, open_telemetry(settings), system_random(), watch)
    async with AsyncExitStack() as stack:
        for model in models:
            stack.push_async_callback(model.aclose)
        yield _panel(settings, models)


def anchor_cases(settings: Settings) -> "Sequence[AnchorCase]":
    """Return the cases by which the judge itself is judged.

    Raises:
        ConfigError: their file cannot be used.
    """
    from deltawheel.infra import anchor_file

    return anchor_file.anchor_cases(settings)


def judge_revision(settings: Settings) -> str:
    """Return the revision of the judge that the settings name.

    Raises:
        ConfigError: the folder of its weights holds none.
    """
    if not settings.judge.models:
        return _program(settings).revision
    from deltawheel.infra.declared_pool import served_model
    from deltawheel.infra.judges.jury import jury_revision
    from deltawheel.infra.judges.llm import revision_of

    revisions = {
        model.name: revision_of(model, weights=served_model(model, settings)[2])
        for model in settings.judge.models.values()
    }
    return jury_revision(revisions, settings.judge.jury)


def _judge_endpoint(settings: Settings, key: str) -> "JudgeEndpoint":
    from deltawheel.infra.credentials import endpoint_key
    from deltawheel.infra.declared_pool import served_model
    from deltawheel.infra.judges.llm import JudgeEndpoint
    from deltawheel.infra.model_client import key_headers, trimmed

    model = settings.judge.models[key]
    endpoint, name, revision = served_model(model, settings)
    servers = {f"server:{server.name}": server.url for server in settings.servers}
    secret = endpoint_key(model, owner=key)
    return JudgeEndpoint(
        url=trimmed(servers.get(endpoint, endpoint)),
        model=name,
        revision=revision,
        headers=key_headers(secret, owner=key) if secret else None,
    )


def open_held_out(settings: Settings) -> "HeldOut | None":
    """Return the prompts that are kept for probes, or None where nobody is to be probed.

    Raises:
        ConfigError: their file cannot be used.
    """
    from deltawheel.infra import held_out

    return held_out.open_held_out(settings)


def open_probe_verifier(settings: Settings) -> "Verifier":
    """Build what verifies the answers to probes: the sandbox's problems have their own.

    Raises:
        ConfigError: no installed package has a verifier of that name.
    """
    from deltawheel.infra.verifiers import open_verifier

    is_sandbox = settings.probe.file == SANDBOX
    changed = {"verifier": SANDBOX} if is_sandbox else {}
    return open_verifier(settings.judge.model_copy(update=changed))


def open_pair_checks(settings: Settings) -> "PairChecks":
    """Build the data-quality checks."""
    from deltawheel.infra.pair_checks import GreatExpectationsChecks

    return GreatExpectationsChecks(settings.curation)


def open_models(settings: Settings, telemetry: "Telemetry") -> "UnloadingChatModel":
    """Build the client of all model servers."""
    from deltawheel.infra.chat_model import OpenAIChatModel
    from deltawheel.infra.credentials import endpoint_keys, member_key

    return OpenAIChatModel(
        servers={server.name: server.url for server in settings.servers},
        api_keys=endpoint_keys(settings),
        member_key=member_key,
        request_timeout_s=settings.generation.request_timeout_s,
        max_in_flight=settings.generation.most_in_flight,
        telemetry=telemetry,
    )


def open_registry(settings: Settings) -> "Registry":
    """Build the model registry."""
    from deltawheel.infra.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings)
