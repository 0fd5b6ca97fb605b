"""Generators: models of the pool, each at one exact revision, and the log of who was in it when."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import CanonicalDecimal, Name, Record, UtcTime

__all__ = [
    "Generator",
    "GeneratorDelta",
    "GeneratorRole",
    "PoolEvent",
    "PoolEventKind",
    "Sampling",
]


class Sampling(Record):
    """How a generator is asked. Part of a trace's identity, hence decimals and no floats."""

    temperature: CanonicalDecimal = Field(default=Decimal(1), ge=0, le=2)
    top_p: CanonicalDecimal = Field(default=Decimal(1), gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)


class GeneratorRole(StrEnum):
    """On which side of a pair a generator is meant to stand; what the judge says of it decides."""

    ANY = "any"
    STRONGER = "stronger"
    WEAKER = "weaker"


class Generator(Record):
    """One model of the pool at one exact revision.

    `revision` changes whenever the weights do; for a LoRA adapter it is the digest of its file.
    `model` is the name under which the server at `endpoint` answers: for an adapter it contains
    the revision, because re-using a name can serve stale cached prefixes.
    """

    name: Name
    revision: str = Field(min_length=1)
    endpoint: str = Field(
        description="server:<name> for one that `up` starts, else the base URL of its API."
    )
    model: str
    adapter_path: str | None = Field(
        default=None, description="The LoRA adapter to load when the server does not know it."
    )
    capability: float = Field(
        allow_inf_nan=False, description="Declared prior on the ladder; only differences count."
    )
    capability_stderr: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        description="How unsure the prior is, on the same ladder.",
    )
    weight: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="Share in weighted rotation."
    )
    api_key_env: str | None = Field(
        default=None,
        description="The variable with its endpoint's key, where the settings do not name it.",
    )
    lineage_depth: int = Field(
        default=0, ge=0, description="How many turns of our own wheel stand behind it."
    )
    sampling: Sampling = Sampling()
    replicas: tuple[str, ...] = Field(
        default=(), description="Base URLs of further servers of the same model."
    )
    family: str | None = Field(
        default=None, description="Whose model it is by origin; families prefer themselves."
    )
    size_b: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Billions of parameters."
    )
    role: GeneratorRole = GeneratorRole.ANY
    prompt_price: CanonicalDecimal = Field(default=Decimal(0), ge=0)
    completion_price: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, description="Of a million tokens, in the operator's money."
    )
    domains: tuple[str, ...] | None = Field(
        default=None, description="The only domains whose prompts it is dealt; unset means all."
    )
    max_in_flight: int | None = Field(
        default=None, ge=1, description="Most requests at the same time of one process."
    )
    max_tokens_per_day: int | None = Field(
        default=None, ge=1, description="Prompt and completion tokens of a UTC day."
    )

    @property
    def server(self) -> str:
        """What its server is called where outages are told of; never with a password."""
        return without_password(self.endpoint.rstrip("/"))

    @property
    def reference(self) -> str:
        """Name and revision in one text, for logs and labels."""
        return f"{self.name}@{self.revision}"


class GeneratorDelta(Record):
    """How much more capable the generator of `chosen` is than that of `rejected`.

    An estimate with its standard error on a named scale, as it was believed when the pair was made.
    """

    estimate: float = Field(allow_inf_nan=False)
    stderr: float = Field(ge=0, allow_inf_nan=False)
    scale: str = "declared-prior"
    ladder_revision: str


class PoolEventKind(StrEnum):
    """What can happen to a member of the pool.

    A drained member is dealt nothing more, and what was dealt to it goes on; a retired one is
    unloaded too, once nothing of it is open. One that has left (its server is down, its tokens of
    the day are spent, another model answers for it) is a member still, and returns by itself.
    """

    DECLARED = "declared"
    ADDED = "added"
    PROMOTED = "promoted"
    DRAINED = "drained"
    RETIRED = "retired"
    LEFT = "left"
    RETURNED = "returned"


class PoolEvent(Record):
    """One line of the pool's log. The pool is what the log, read in order, leaves standing."""

    kind: PoolEventKind
    generator: Generator
    reason: str
    at: UtcTime
    cause: str = Field(description="What asked for it; the same cause is never logged twice.")

    @property
    def event_id(self) -> str:
        """The same cause does the same thing to the same revision once."""
        return content_id(
            "pool-event",
            1,
            self.kind.value,
            self.generator.name,
            self.generator.revision,
            self.cause,
        )
