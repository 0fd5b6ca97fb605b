"""Settings of what runs: store, registry, gateway, servers, and how they are kept alive."""

from enum import StrEnum

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.addresses import host_port, is_loopback
from deltawheel.contracts.record import Name
from deltawheel.contracts.settings.section import Port, Section
from deltawheel.contracts.settings.values import (
    SANDBOX,
    StoreUrl,
)

__all__ = [
    "GatewaySettings",
    "MonitoringSettings",
    "RegistrySettings",
    "RuntimeSettings",
    "ServerSettings",
    "StoreKind",
    "StoreSettings",
    "SupervisorSettings",
]


class StoreKind(StrEnum):
    """Which database the wheel keeps by itself, where no `url` names another."""

    SQLITE = "sqlite"
    LOCAL_POSTGRES = "local-postgres"


class StoreSettings(Section):
    """The store that all processes share."""

    kind: StoreKind = Field(
        default=StoreKind.SQLITE,
        description=(
            "sqlite: a file in <home>/state, or the database of `url`; local-postgres: a "
            "PostgreSQL that `up` starts, in <home>/state/postgres (needs the extra postgres)."
        ),
    )
    port: Port = Field(
        default=0, description="Port of local-postgres, on loopback; 0 takes a free one each time."
    )
    url: StoreUrl | None = Field(
        default=None, description="SQLAlchemy URL; unset means SQLite in <home>/state/store.db."
    )

    @field_validator("url")
    @classmethod
    def _names_no_second_database(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None and info.data.get("kind") is StoreKind.LOCAL_POSTGRES:
            raise ValueError(
                "kind local-postgres is a database already; remove the url, or set store.kind: "
                "sqlite to use the url's"
            )
        return url


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
        default=32_000,
        ge=1,
        description="Longer prompts, reference answer included, are refused with 422; characters.",
    )
    max_batch: int = Field(default=1_000, ge=1, description="Most prompts in one request.")

    @property
    def url(self) -> str:
        """Where it listens, as a URL without path."""
        return f"http://{host_port(self.host, self.port)}"


class ServerSettings(Section):
    """A vLLM server that `up` starts and watches."""

    name: Name = Field(default="local", description="What generators call it.")
    base: str = Field(
        default=SANDBOX, description="Folder of the base model; 'sandbox' is the one that ships."
    )
    served_name: str = Field(default="base", description="Name under which the base answers.")
    host: str = Field(default="127.0.0.1", description="Loopback address to listen on.")
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

    @field_validator("host")
    @classmethod
    def _is_for_this_machine(cls, host: str) -> str:
        if not is_loopback(host):
            raise ValueError(
                "others can reach it, and could load adapters, for the server asks nobody for a "
                "key; keep 127.0.0.1, or run the server elsewhere and give its generators "
                "'endpoint' instead of 'server'"
            )
        return host

    @property
    def origin(self) -> str:
        """Where it listens, as a URL without path."""
        return f"http://{host_port(self.host, self.port)}"

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-compatible API."""
        return f"{self.origin}/v1"


class MonitoringSettings(Section):
    """Metrics from the store's rows."""

    refresh_s: float = Field(default=1.0, gt=0, description="Least time between two refreshes.")


class RuntimeSettings(Section):
    """The loop that all streaming services share."""

    poll_timeout_s: float = Field(default=0.2, gt=0, description="Longest wait for new records.")
    max_in_flight_mb: int = Field(
        default=64,
        ge=1,
        description="Nothing is fetched while records in work take more memory than this; MB.",
    )
    backoff_base_s: float = Field(default=0.2, gt=0, description="First pause before a retry.")
    backoff_cap_s: float = Field(default=10.0, gt=0, description="Longest pause before a retry.")
    drain_timeout_s: float = Field(default=20.0, gt=0, description="How long a stop may take.")
    upkeep_interval_s: float = Field(
        default=1.0,
        gt=0,
        description="Pause between two looks for deferred records, halts and what is to be noted.",
    )
    breaker_failures: int = Field(
        default=8,
        ge=1,
        description="Failures in a row after which a dependency counts as down: its breaker opens.",
    )
    breaker_base_s: float = Field(
        default=0.5, gt=0, description="First pause before one record tries it again."
    )
    breaker_cap_s: float = Field(
        default=10.0, gt=0, description="Longest pause before one record tries it again."
    )
    defer_after_tries: int = Field(
        default=12,
        ge=1,
        description="Failures of a record, others succeeding in between, that defer it.",
    )
    defer_base_s: float = Field(
        default=30.0, gt=0, description="First pause before a deferred record is tried again."
    )
    defer_cap_s: float = Field(
        default=900.0, gt=0, description="Longest pause before a deferred record is tried again."
    )
    defer_deadline_s: float = Field(
        default=86_400.0,
        gt=0,
        description="Then a deferred record is a dead letter; time in outages does not count.",
    )
    halt_after_refusals: int = Field(
        default=20,
        ge=2,
        description=(
            "Records of one partition that are invalid in a row though the store knows what they "
            "speak of, after which the partition halts until `deltawheel resume`."
        ),
    )
    heartbeat_interval_s: float = Field(default=0.5, gt=0, description="Of the consumer group.")
    session_timeout_s: float = Field(default=6.0, gt=0, description="Of the consumer group.")
    static_membership: bool = Field(
        default=False,
        description=(
            "Whether a service that is started again takes its partitions back at once; needs "
            "Apache Kafka, and a session_timeout_s longer than a restart. It is for quick "
            "rejoining only and fences nobody."
        ),
    )


class SupervisorSettings(Section):
    """Keeping processes alive."""

    backoff_base_s: float = Field(default=0.5, gt=0, description="Pause before the first restart.")
    backoff_cap_s: float = Field(default=10.0, gt=0, description="Longest pause before a restart.")
    stable_after_s: float = Field(
        default=30.0, gt=0, description="Running so long forgets earlier restarts."
    )
    stop_timeout_s: float = Field(default=25.0, gt=0, description="Then a process is killed.")
