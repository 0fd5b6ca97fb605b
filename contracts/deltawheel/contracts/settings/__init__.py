"""Every setting of a wheel, each with what it does; the one commented YAML file is made from here.

Values come from the YAML file, and above it from the environment: `DELTAWHEEL_GATEWAY__PORT=8601`
overrides `gateway.port`. Secrets come from the environment only and have no key here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from deltawheel.contracts.record import Name
from deltawheel.contracts.rubric import PAPER_DIMENSIONS, PAPER_ORDER_BY, SCORES, Rubric
from deltawheel.contracts.settings.anchors import ANCHORS_EVERY_S, AnchorSettings
from deltawheel.contracts.settings.broker import (
    BrokerKind,
    BrokerProtocol,
    BrokerSecurity,
    BrokerSettings,
    SaslMechanism,
)
from deltawheel.contracts.settings.cycle import (
    EvaluationSettings,
    GateSettings,
    SuiteSettings,
    TrainingSettings,
)
from deltawheel.contracts.settings.judge_model import (
    JUDGE_KEY,
    Grammar,
    JudgeMode,
    JudgeModelSettings,
)
from deltawheel.contracts.settings.judging import (
    SCORED_BY,
    JudgeKind,
    JudgeSettings,
    RubricSettings,
    SameFamily,
)
from deltawheel.contracts.settings.jury import Combination, JurySettings
from deltawheel.contracts.settings.ladder import LadderSettings, ProbeSettings
from deltawheel.contracts.settings.processes import (
    GatewaySettings,
    MonitoringSettings,
    RegistrySettings,
    RuntimeSettings,
    ServerSettings,
    StoreKind,
    StoreSettings,
    SupervisorSettings,
)
from deltawheel.contracts.settings.section import refuse, repeated
from deltawheel.contracts.settings.stream import (
    SANDBOX_POOL,
    CurationSettings,
    Explore,
    GenerationSettings,
    GeneratorSettings,
    RotationPolicy,
    RotationSettings,
)
from deltawheel.contracts.settings.values import SANDBOX
from deltawheel.contracts.slices import ORDER_BY

__all__ = [
    "JUDGE_KEY",
    "SANDBOX",
    "SCORED_BY",
    "AnchorSettings",
    "BrokerKind",
    "BrokerProtocol",
    "BrokerSecurity",
    "BrokerSettings",
    "Combination",
    "CurationSettings",
    "EvaluationSettings",
    "Explore",
    "GateSettings",
    "GatewaySettings",
    "GenerationSettings",
    "GeneratorSettings",
    "Grammar",
    "JudgeKind",
    "JudgeMode",
    "JudgeModelSettings",
    "JudgeSettings",
    "JurySettings",
    "LadderSettings",
    "MonitoringSettings",
    "ProbeSettings",
    "RegistrySettings",
    "RotationPolicy",
    "RotationSettings",
    "RubricSettings",
    "RuntimeSettings",
    "SameFamily",
    "SaslMechanism",
    "ServerSettings",
    "Settings",
    "StoreKind",
    "StoreSettings",
    "SuiteSettings",
    "SupervisorSettings",
    "TrainingSettings",
]


def _server_faults(settings: "Settings") -> list[str]:
    return repeated("servers", [server.name for server in settings.servers])


def _generator_faults(settings: "Settings") -> Iterator[str]:
    generators, servers = settings.generators, [server.name for server in settings.servers]
    yield from repeated("generators", [generator.name for generator in generators])
    if len(generators) < 2:
        yield "generators: a pair needs two, so name at least two"
    for generator in generators:
        if generator.server not in {None, *servers}:
            yield (
                f"generators.{generator.name}.server: unknown server {generator.server!r}; "
                f"servers are {servers}"
            )
        if generator.replicas and generator.endpoint is None:
            yield (
                f"generators.{generator.name}.replicas: they are further servers of an endpoint's "
                "model, so give 'endpoint' as well"
            )


def _rotation_faults(settings: "Settings") -> Iterator[str]:
    names = [generator.name for generator in settings.generators]
    pairs = settings.rotation.pairs or ()
    for first, second in pairs:
        if first == second:
            yield f"rotation.pairs: {first!r} cannot be paired with itself"
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name not in names:
            yield f"rotation.pairs: unknown generator {name!r}; generators are {names}"


def _judge_faults(settings: "Settings") -> Iterator[str]:
    names = [generator.name for generator in settings.generators]
    if settings.judge.favourite not in {None, *names}:
        yield (
            f"judge.favourite: unknown generator {settings.judge.favourite!r}; generators are "
            f"{names}"
        )
    if settings.judge.kind is JudgeKind.LLM and (planted := settings.judge.planted):
        yield f"judge.{planted[0]}: faults are planted in judge.kind sandbox and exact-match alone"
    servers = [server.name for server in settings.servers]
    for key, model in settings.judge.models.items():
        if model.server not in {None, *servers}:
            yield f"{key}.server: unknown server {model.server!r}; servers are {servers}"


def _jury_faults(settings: "Settings") -> Iterator[str]:
    judge, jury, deadline_s = settings.judge, settings.judge.jury, settings.runtime.defer_deadline_s
    if jury.members and judge.kind is not JudgeKind.LLM:
        yield f"judge.jury.members: judge.kind is {judge.kind}; only models (llm) form a jury"
    names = [model.name for model in (judge.model, *jury.members) if model is not None]
    yield from repeated("judge.model and judge.jury.members", names)
    if jury.members and jury.patience_s >= deadline_s:
        yield (
            f"judge.jury.patience_s: it is {jury.patience_s:g}, but a trace is given up after "
            f"runtime.defer_deadline_s, {deadline_s:g}; give less than that"
        )


def _family_faults(settings: "Settings") -> Iterator[str]:
    for generator in settings.generators:
        if settings.judge.refuses(generator.family):
            named = ", ".join(
                key
                for key, model in settings.judge.models.items()
                if (model.family or "").casefold() == (generator.family or "").casefold()
            )
            yield (
                f"generators.{generator.name}.family: {named} is of {generator.family!r} too; "
                "judge by another family, or set judge.same_family: record"
            )


def _rubric_faults(settings: "Settings") -> Iterator[str]:
    kind = settings.judge.kind
    dimensions, order_by = _rubric_parts(settings)
    scored = SCORED_BY.get(kind)
    if scored is not None and (unknown := sorted(dimensions.keys() - scored.keys())):
        yield (
            f"rubric.dimensions: judge.kind {kind} cannot score {unknown}; it scores "
            f"{sorted(scored)}"
        )
    if (anchors := settings.rubric.anchors) is not None:
        if unknown := sorted(anchors.keys() - dimensions.keys()):
            yield f"rubric.anchors: unknown {unknown}; dimensions are {sorted(dimensions)}"
        silent = [n for n in dimensions if not set(SCORES) <= anchors.get(n, {}).keys()]
        if kind is JudgeKind.LLM and silent:
            yield f"rubric.anchors: say what every score from 1 to 5 means of {silent}"
    if unknown := sorted(order_by.keys() - dimensions.keys()):
        what = "unknown" if settings.rubric.order_by else "unset, it weighs"
        yield f"rubric.order_by: {what} {unknown}; give weights over {sorted(dimensions)}"


def _training_faults(settings: "Settings") -> Iterator[str]:
    training, servers = settings.training, {server.name: server for server in settings.servers}
    if training.is_enabled and training.server not in servers:
        yield (
            f"training.server: unknown server {training.server!r}; servers are {list(servers)} "
            "(or set training.is_enabled: false)"
        )
    elif training.is_enabled and _folder(training.base) != _folder(
        base := servers[training.server].base
    ):
        yield (
            f"training.base: it is {training.base!r}, but servers.{training.server}.base is "
            f"{base!r}; adapters fit the model that they were trained on, so give both the same"
        )
    dimensions, _ = _rubric_parts(settings)
    if training.dimension not in {ORDER_BY, *dimensions}:
        yield (
            f"training.dimension: unknown {training.dimension!r}; it may be {ORDER_BY} or one of "
            f"{sorted(dimensions)}"
        )


def _membership_faults(settings: "Settings") -> Iterator[str]:
    if settings.runtime.static_membership and settings.broker.kind is BrokerKind.EMBEDDED:
        yield (
            "runtime.static_membership: the embedded broker never lets go of a static member that "
            "has left; set it to false, or broker.kind to local-kafka or kafka"
        )


_COMPARISONS: tuple[Callable[["Settings"], Iterable[str]], ...] = (
    _server_faults,
    _generator_faults,
    _rotation_faults,
    _judge_faults,
    _jury_faults,
    _family_faults,
    _rubric_faults,
    _training_faults,
    _membership_faults,
)
"""What sections must agree on; each yields one sentence for each fault, with its key."""


def _rubric_parts(settings: "Settings") -> tuple[Mapping[str, str], Mapping[str, Decimal]]:
    """Return dimensions and weights as they are in force."""
    kind, rubric = settings.judge.kind, settings.rubric
    dimensions = rubric.dimensions or SCORED_BY.get(kind, PAPER_DIMENSIONS)
    if kind is JudgeKind.EXACT_MATCH and rubric.order_by is None:
        return dimensions, dict.fromkeys(dimensions, Decimal(1))
    return dimensions, rubric.order_by or PAPER_ORDER_BY


def _folder(base: str) -> Path | None:
    return None if base == SANDBOX else Path(base).expanduser().resolve()


class Settings(BaseSettings):
    """Settings of one wheel."""

    model_config = SettingsConfigDict(
        env_prefix="DELTAWHEEL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # it may hold a password
    )

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
        default=SANDBOX_POOL,
        description="Members of the pool, at least two; unset, the three that ship.",
    )
    rotation: RotationSettings = Field(default=RotationSettings(), description="Rotation.")
    ladder: LadderSettings = Field(
        default=LadderSettings(), description="How capable generators are taken to be."
    )
    probe: ProbeSettings = Field(
        default=ProbeSettings(), description="Held-out prompts by which members are rated."
    )
    generation: GenerationSettings = Field(default=GenerationSettings(), description="Generation.")
    judge: JudgeSettings = Field(default=JudgeSettings(), description="The judge.")
    rubric: RubricSettings = Field(default=RubricSettings(), description="The rubric.")
    anchors: AnchorSettings = Field(
        default=AnchorSettings(), description="Cases of known order, by which the judge is judged."
    )
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
    def _sections_agree(self) -> Self:
        refuse(fault for check in _COMPARISONS for fault in check(self))
        return self

    def make_rubric(self) -> Rubric:
        """Return the rubric that this wheel judges by."""
        dimensions, order_by = _rubric_parts(self)
        return Rubric(
            name=self.rubric.name,
            dimensions=dimensions,
            anchors=self.rubric.anchors or {},
            order_by=order_by,
            tie_width=self.rubric.tie_width,
        )

    @property
    def anchor_interval_s(self) -> float | None:
        """How often anchors are judged again; None for never."""
        if self.anchors.interval_s is not None:
            return self.anchors.interval_s or None
        return ANCHORS_EVERY_S if self.judge.kind is JudgeKind.LLM else None

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
        """SQLAlchemy URL of the store; of local-postgres, only a running wheel's is in use."""
        if self.store.kind is StoreKind.LOCAL_POSTGRES:
            return f"postgresql://deltawheel@127.0.0.1:{self.store.port}/postgres"
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
        """Order the sources: the environment stands above the file, whose content is passed in."""
        return (env_settings, init_settings)
