"""Every setting of a wheel, each with what it does; the one commented YAML file is made from here.

Values come from the YAML file, and above it from the environment: `DELTAWHEEL_GATEWAY__PORT=8601`
overrides `gateway.port`. Secrets come from the environment only and have no key here.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import GateThresholds
from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.rubric import PAPER_DIMENSIONS, Rubric
from deltawheel.contracts.slices import ORDER_BY

__all__ = [
    "BrokerKind",
    "BrokerSettings",
    "CurationSettings",
    "EvaluationSettings",
    "GateSettings",
    "GatewaySettings",
    "GenerationSettings",
    "GeneratorSettings",
    "JudgeKind",
    "JudgeSettings",
    "MonitoringSettings",
    "RotationSettings",
    "RubricSettings",
    "RuntimeSettings",
    "ServerSettings",
    "Settings",
    "SuiteSettings",
    "SupervisorSettings",
    "TrainingSettings",
]

Port = Annotated[int, Field(ge=0, le=65535)]
SANDBOX = "sandbox"


class Section(BaseModel):
    """A group of keys; a key that it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class BrokerKind(StrEnum):
    """Where the topics live."""

    EMBEDDED = "embedded"
    LOCAL_KAFKA = "local-kafka"
    KAFKA = "kafka"


class BrokerSettings(Section):
    """The Kafka-protocol broker."""

    kind: BrokerKind = Field(
        default=BrokerKind.EMBEDDED,
        description=(
            "embedded: a memory-only broker that `up` starts and refills from the store; "
            "local-kafka: an Apache Kafka that `up` starts from KAFKA_HOME (needs Java 17); "
            "kafka: one that runs elsewhere."
        ),
    )
    host: str = Field(default="127.0.0.1", description="Address on which `up` starts its broker.")
    port: Port = Field(default=0, description="Its port; 0 takes a free one at each start.")
    bootstrap: str | None = Field(
        default=None, description="host:port,host:port of the brokers, for kind kafka."
    )
    partitions: int = Field(
        default=4,
        ge=1,
        description="Partitions of each topic: the most members that share its work.",
    )
    max_message_bytes: int = Field(
        default=4_000_000,
        ge=100_000,
        description="Longest record; must hold the longest trace twice.",
    )

    @model_validator(mode="after")
    def _remote_broker_has_an_address(self) -> Self:
        if self.kind is BrokerKind.KAFKA and not self.bootstrap:
            raise ValueError("kind kafka needs 'bootstrap', for example bootstrap: kafka-1:9092")
        return self


class StoreSettings(Section):
    """The store that all processes share."""

    url: str | None = Field(
        default=None, description="SQLAlchemy URL; unset means SQLite in <home>/state/store.db."
    )


class RegistrySettings(Section):
    """The MLflow registry."""

    uri: str | None = Field(
        default=None,
        description="MLflow tracking URI; unset means SQLite and a folder in <home>/registry.",
    )
    model_name: Name | None = Field(
        default=None, description="Registered model; unset means deltawheel-<wheel>."
    )


class GatewaySettings(Section):
    """The HTTP API."""

    host: str = Field(
        default="127.0.0.1",
        description="Address; other than loopback, DELTAWHEEL_GATEWAY_TOKEN must be set.",
    )
    port: Port = Field(default=8600, description="Its port; 0 takes a free one at each start.")
    max_prompt_chars: int = Field(
        default=32_000, ge=1, description="Longer prompts are refused with 422, in characters."
    )
    max_batch: int = Field(default=1_000, ge=1, description="Most prompts in one request.")


class ServerSettings(Section):
    """A vLLM server that `up` starts and watches."""

    name: Name = Field(default="local", description="What generators call it.")
    base: str = Field(
        default=SANDBOX, description="Folder of the base model; 'sandbox' is the one that ships."
    )
    served_name: str = Field(default="base", description="Name under which the base answers.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=0, description="Its port; 0 takes a free one at each start.")
    dtype: str = Field(default="float32", description="Weights' type; bfloat16 on GPUs.")
    max_model_len: int = Field(
        default=128, ge=16, description="Longest prompt with answer, tokens."
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Requests decoded at the same time.")
    max_lora_rank: int = Field(default=16, ge=1, description="At least the rank of every adapter.")
    max_loras: int = Field(
        default=6,
        ge=1,
        description="Adapters in memory: the pool, champion, candidate, one draining.",
    )
    kv_cache_gb: int = Field(default=1, ge=1, description="Key-value cache of the CPU build, GB.")
    boot_timeout_s: float = Field(default=240, gt=0, description="How long it may take to answer.")
    extra_args: tuple[str, ...] = Field(default=(), description="Further arguments of vLLM.")

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-compatible API."""
        return f"http://{self.host}:{self.port}/v1"


class GeneratorSettings(Section):
    """A declared member of the pool: an adapter on one of our servers, or any endpoint's model."""

    name: Name = Field(description="What rotation, metrics and tables call it.")
    server: Name | None = Field(default=None, description="One of `servers`; or give `endpoint`.")
    endpoint: str | None = Field(
        default=None,
        description="Base URL of an OpenAI-compatible API, for example http://host:8000/v1.",
    )
    model: str | None = Field(
        default=None, description="Model name at the endpoint, or the server's base if unset."
    )
    adapter: str | None = Field(
        default=None, description="LoRA adapter folder, or sandbox:<name> for one that ships."
    )
    revision: str | None = Field(
        default=None,
        description="Exact revision of an endpoint's model; change it with the weights.",
    )
    capability: float = Field(
        default=0.0, description="Declared prior on the ladder; higher is more capable."
    )
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable with the endpoint's key."
    )
    sampling: Sampling = Field(default=Sampling(), description="How it is asked.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.server is None) == (self.endpoint is None):
            raise ValueError("give either 'server' or 'endpoint', one of the two")
        if self.endpoint is not None and self.model is None:
            raise ValueError("an endpoint needs 'model', the name to ask for there")
        return self


class RotationSettings(Section):
    """How prompts are dealt to generators."""

    policy: Literal["round-robin"] = Field(
        default="round-robin", description="Deals prompts evenly over the generator pairs."
    )
    pairs: tuple[tuple[Name, Name], ...] | None = Field(
        default=None, description="Generator pairs to deal over; unset means every two of the pool."
    )


class GenerationSettings(Section):
    """Asking the generators."""

    concurrency: int = Field(default=96, ge=1, description="Prompts in work at the same time.")
    request_timeout_s: float = Field(default=60, gt=0, description="Longest wait for one trace.")
    expire_after_s: float = Field(
        default=86_400, gt=0, description="Open slots end as expired after this; the last resort."
    )


class JudgeKind(StrEnum):
    """Which judge scores the traces."""

    SANDBOX = "sandbox"
    EXACT_MATCH = "exact-match"


class JudgeSettings(Section):
    """The judge, and the faults that the sandbox's judge can be given on purpose."""

    kind: JudgeKind = Field(
        default=JudgeKind.SANDBOX,
        description=(
            "sandbox: parses and recomputes every step of chained arithmetic; "
            "exact-match: compares with the prompt's reference answer, as text or as a number."
        ),
    )
    answer_pattern: str | None = Field(
        default=None,
        description="Regular expression whose first group is the answer, for exact-match; "
        "unset takes the last number, or else the last line.",
    )
    numeric_tolerance: float = Field(
        default=1e-9, ge=0, description="Largest relative difference at which numbers are the same."
    )
    inverted: bool = Field(
        default=False, description="Sabotage: every score becomes 6 minus itself. For trials only."
    )
    noise: float = Field(
        default=0.0, ge=0, description="Planted seeded noise, standard deviation in points."
    )
    length_bias: float = Field(
        default=0.0, description="Planted points per 100 characters of trace."
    )
    self_preference: float = Field(
        default=0.0, description="Planted points for traces of the generator named as favourite."
    )
    favourite: Name | None = Field(default=None, description="The generator that is preferred.")
    seed: int = Field(default=0, description="Seed of the planted noise.")
    concurrency: int = Field(default=256, ge=1, description="Traces in work at the same time.")


class RubricSettings(Section):
    """What is scored, and what decides who is chosen. A change starts a new rubric digest."""

    name: Name = Field(default="paper-five", description="Name of the rubric.")
    dimensions: Mapping[str, str] | None = Field(
        default=None,
        description="Dimensions with the question each asks; unset takes those of the judge.",
    )
    order_by: Mapping[str, CanonicalDecimal] | None = Field(
        default=None, description="Relative weights over dimensions that decide the chosen side."
    )
    tie_width: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, le=4, description="Differences up to this are ties, in points."
    )


class CurationSettings(Section):
    """Closing groups, checking pairs, and publishing again what is owed."""

    batch_max_pairs: int = Field(
        default=512,
        ge=1,
        description="Largest micro-batch; a check costs about 60 ms whatever its size.",
    )
    batch_max_wait_s: float = Field(
        default=0.25, gt=0, description="Longest wait for a micro-batch to fill."
    )
    max_text_chars: int = Field(default=100_000, ge=1, description="Longer traces are quarantined.")
    max_length_ratio: float = Field(
        default=50.0, gt=1, description="Longer over shorter side; pairs above it are quarantined."
    )
    republish_after_s: float = Field(
        default=30.0, gt=0, description="Owed events older than this are published again."
    )


class SuiteSettings(Section):
    """One evaluation suite."""

    name: Name = Field(description="Name of the suite.")
    role: SuiteRole = Field(description="out-of-domain, in-domain or guard.")
    items: str = Field(
        description="sandbox:<suite>, or a JSONL file of lines with prompt and reference_answer."
    )


_SANDBOX_SUITES = (
    SuiteSettings(name="in-domain", role=SuiteRole.IN_DOMAIN, items="sandbox:in_domain"),
    SuiteSettings(name="times", role=SuiteRole.OUT_OF_DOMAIN, items="sandbox:out_of_domain_times"),
    SuiteSettings(name="mixed", role=SuiteRole.OUT_OF_DOMAIN, items="sandbox:out_of_domain_mixed"),
    SuiteSettings(name="max-min", role=SuiteRole.GUARD, items="sandbox:guard"),
)


class EvaluationSettings(Section):
    """How champion and candidate are compared."""

    suites: tuple[SuiteSettings, ...] = Field(
        default=_SANDBOX_SUITES, description="At least one of them must be out-of-domain."
    )
    items_per_suite: int = Field(default=1_000, ge=50, description="Items of each suite.")
    answer_pattern: str = Field(
        default=r"A:(-?\d+)", description="Regular expression whose first group is the answer."
    )
    max_tokens: int = Field(default=64, ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="As deployed; 0 is greedy decoding."
    )
    concurrency: int = Field(default=64, ge=1, description="Requests at the same time.")

    @model_validator(mode="after")
    def _measures_transfer(self) -> Self:
        if not any(suite.role is SuiteRole.OUT_OF_DOMAIN for suite in self.suites):
            raise ValueError("at least one suite must have the role out-of-domain")
        return self


class GateSettings(Section):
    """What a candidate must show. Accuracies and differences are shares, 0 to 1."""

    alpha: float = Field(default=0.025, gt=0, lt=0.5, description="Error rate of each bound.")
    min_gain: float = Field(
        default=0.02, ge=0, lt=1, description="A gain that is surely below this is a rejection."
    )
    max_harm: float = Field(
        default=0.02, gt=0, lt=1, description="Non-inferiority margin, in-domain and guard."
    )
    max_suite_harm: float = Field(
        default=0.05, gt=0, lt=1, description="No single suite may surely fall by more."
    )
    num_resamples: int = Field(default=4_000, ge=200, description="Bootstrap resamples.")

    def thresholds(self, seed: int) -> GateThresholds:
        """Return the record that stands in the decision."""
        return GateThresholds(seed=seed, **self.model_dump())


class TrainingSettings(Section):
    """When a cycle starts and how it trains."""

    is_enabled: bool = Field(default=True, description="Whether cycles start by themselves.")
    cron: str | None = Field(
        default="0 3 * * *", description="Crontab of scheduled cycles, UTC; unset for none."
    )
    min_new_pairs: int | None = Field(
        default=5_000,
        ge=1,
        description="Pairs stored since the last cycle that start one; or unset.",
    )
    base: str = Field(
        default=SANDBOX, description="Folder of the base model, the reference of the epoch."
    )
    server: Name = Field(default="local", description="The one of `servers` that evaluates.")
    top_share: CanonicalDecimal = Field(
        default=Decimal("0.3"), gt=0, le=1, description="Share of the pairs, highest delta first."
    )
    dimension: str = Field(
        default=ORDER_BY, description="Whose delta ranks the pairs: order_by, or a dimension."
    )
    min_pairs: int = Field(default=50, ge=2, description="Smaller slices are not trained on.")
    learning_rate: float = Field(default=5e-4, gt=0, description="About ten times full training's.")
    beta: float = Field(default=5.0, gt=0, description="DPO's beta, length-normalised loss.")
    batch_size: int = Field(default=32, ge=1, description="Pairs per optimiser step.")
    epochs: int = Field(default=1, ge=1, description="Passes over the slice.")
    warmup_steps: int = Field(default=3, ge=0, description="Linear warm-up, in steps.")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapter.")
    max_length: int = Field(
        default=128, ge=8, description="Longer pairs are dropped and counted, tokens."
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads; more than are free is slower, not faster."
    )
    seed: int = Field(default=0, description="Seed of initialisation and order.")
    sampling: Sampling = Field(
        default=Sampling(max_tokens=64), description="How a promoted model is asked."
    )
    step_timeout_s: float = Field(default=3_600, gt=0, description="Longest a step may take.")
    max_step_attempts: int = Field(default=5, ge=1, description="Tries before the cycle fails.")


class MonitoringSettings(Section):
    """Metrics from the store's rows."""

    refresh_s: float = Field(default=1.0, gt=0, description="Least time between two refreshes.")


class RuntimeSettings(Section):
    """The loop that all streaming services share."""

    poll_timeout_s: float = Field(default=0.2, gt=0, description="Longest wait for new records.")
    backoff_base_s: float = Field(default=0.2, gt=0, description="First pause before a retry.")
    backoff_cap_s: float = Field(default=10.0, gt=0, description="Longest pause before a retry.")
    drain_timeout_s: float = Field(default=20.0, gt=0, description="How long a stop may take.")
    heartbeat_interval_s: float = Field(default=0.5, gt=0, description="Of the consumer group.")
    session_timeout_s: float = Field(default=6.0, gt=0, description="Of the consumer group.")


class SupervisorSettings(Section):
    """Keeping processes alive."""

    backoff_base_s: float = Field(default=0.5, gt=0, description="Pause before the first restart.")
    backoff_cap_s: float = Field(default=30.0, gt=0, description="Longest pause before a restart.")
    stable_after_s: float = Field(
        default=60.0, gt=0, description="Running so long forgets earlier restarts."
    )
    stop_timeout_s: float = Field(default=25.0, gt=0, description="Then a process is killed.")


class Settings(BaseSettings):
    """Settings of one wheel."""

    model_config = SettingsConfigDict(
        env_prefix="DELTAWHEEL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
    )
    yaml_path: ClassVar[Path | None] = None

    wheel: Name = Field(
        default="default", description="Name of this wheel: in ids, topics, tables and metrics."
    )
    home: Path = Field(
        default=Path("var/wheel"),
        description="Folder of everything the wheel keeps: state/ and registry/ lie in it.",
    )
    gateway: GatewaySettings = Field(default=GatewaySettings(), description="The HTTP API.")
    broker: BrokerSettings = Field(default=BrokerSettings(), description="The broker.")
    store: StoreSettings = Field(default=StoreSettings(), description="The store.")
    registry: RegistrySettings = Field(default=RegistrySettings(), description="The registry.")
    servers: tuple[ServerSettings, ...] = Field(
        default=(ServerSettings(),), description="vLLM servers that `up` starts; [] for none."
    )
    generators: tuple[GeneratorSettings, ...] = Field(
        default=(), description="Members of the pool; at least two."
    )
    rotation: RotationSettings = Field(default=RotationSettings(), description="Rotation.")
    generation: GenerationSettings = Field(default=GenerationSettings(), description="Generation.")
    judge: JudgeSettings = Field(default=JudgeSettings(), description="The judge.")
    rubric: RubricSettings = Field(default=RubricSettings(), description="The rubric.")
    curation: CurationSettings = Field(default=CurationSettings(), description="Curation.")
    training: TrainingSettings = Field(default=TrainingSettings(), description="Training.")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="Evaluation.")
    gate: GateSettings = Field(default=GateSettings(), description="The gate.")
    monitoring: MonitoringSettings = Field(default=MonitoringSettings(), description="Monitoring.")
    runtime: RuntimeSettings = Field(default=RuntimeSettings(), description="The runtime loop.")
    supervisor: SupervisorSettings = Field(
        default=SupervisorSettings(), description="The supervisor."
    )

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        servers = [server.name for server in self.servers]
        names = [generator.name for generator in self.generators]
        if len(set(names)) < len(names):
            raise ValueError(f"generators: names must differ, but they are {names}")
        if self.generators and len(names) < 2:
            raise ValueError("generators: a pair needs two, so name at least two")
        for generator in self.generators:
            if generator.server is not None and generator.server not in servers:
                raise ValueError(
                    f"generators.{generator.name}.server: unknown server {generator.server!r}; "
                    f"servers are {servers}"
                )
        for pair in self.rotation.pairs or ():
            for name in pair:
                if name not in names:
                    raise ValueError(
                        f"rotation.pairs: unknown generator {name!r}; generators are {names}"
                    )
        if self.training.is_enabled and self.training.server not in servers:
            raise ValueError(
                f"training.server: unknown server {self.training.server!r}; servers are {servers} "
                "(or set training.is_enabled: false)"
            )
        rubric = self.make_rubric()
        if self.training.dimension not in {ORDER_BY, *rubric.dimensions}:
            raise ValueError(
                f"training.dimension: unknown {self.training.dimension!r}; it may be {ORDER_BY} or "
                f"one of {sorted(rubric.dimensions)}"
            )
        return self

    def make_rubric(self) -> Rubric:
        """Return the rubric that this wheel judges by."""
        is_exact = self.judge.kind is JudgeKind.EXACT_MATCH
        own = {"factuality": PAPER_DIMENSIONS["factuality"]} if is_exact else PAPER_DIMENSIONS
        chosen: dict[str, Any] = {"dimensions": self.rubric.dimensions or own}
        if self.rubric.order_by is not None:
            chosen["order_by"] = self.rubric.order_by
        elif is_exact:
            chosen["order_by"] = dict.fromkeys(chosen["dimensions"], Decimal(1))
        return Rubric(name=self.rubric.name, tie_width=self.rubric.tie_width, **chosen)

    @property
    def state(self) -> Path:
        """Folder of the store, the cycles' files and the run files."""
        return self.home / "state"

    @property
    def registry_folder(self) -> Path:
        """Folder of the local registry, apart from the state."""
        return self.home / "registry"

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow."""
        return self.registry.model_name or f"deltawheel-{self.wheel}"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.store.url or f"sqlite:///{(self.state / 'store.db').resolve()}"

    @property
    def registry_uri(self) -> str:
        """MLflow tracking URI."""
        return self.registry.uri or f"sqlite:///{(self.registry_folder / 'mlflow.db').resolve()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, then the environment, then the YAML file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if cls.yaml_path is not None:
            sources += (YamlConfigSettingsSource(settings_cls, yaml_file=cls.yaml_path),)
        return sources
