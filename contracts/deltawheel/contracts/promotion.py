"""Promotions: a registered model becomes the champion and goes back into the pool."""

from pydantic import Field

from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["Champion", "Promotion", "RegisteredVersion"]


class Champion(Record):
    """Whom the registry's alias names; `version` None means the base model itself."""

    model_name: str
    version: str | None = None
    adapter_path: str | None = None
    adapter_digest: str | None = None
    lineage_depth: int = 0


class Promotion(Record):
    """A gate said promote, the registry holds the version, the alias points at it."""

    cycle_id: str
    model_name: str
    version: str
    replaces: str | None = Field(description="The version that the alias named before, if any.")
    generator: Generator
    promoted_at: UtcTime

    @property
    def promotion_id(self) -> str:
        """One cycle promotes at most one version."""
        return content_id("promotion", 1, self.cycle_id, self.model_name, self.version)


class RegisteredVersion(Record):
    """A version as the registry holds it."""

    version: str
    aliases: tuple[str, ...]
    cycle_id: str | None
    run_id: str | None
    registered_at: UtcTime
