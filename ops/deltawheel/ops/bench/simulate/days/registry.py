"""The model registry as a cycle sees it: versions, and an alias that people can move."""

from dataclasses import dataclass, field

from deltawheel.contracts.errors import CycleError

__all__ = ["SimulatedRegistry"]


@dataclass(slots=True)
class SimulatedRegistry:
    """Creates are searched for by the cycle's id first; see `contracts.ports.Registry`."""

    champion: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """By the cycle that made them."""
    num_rollbacks: int = 0

    def add_version(self, cycle_id: str) -> str:
        """Make the version of a cycle, once."""
        return self.versions.setdefault(cycle_id, str(len(self.versions) + 1))

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        """Point the alias at the version, unless somebody has moved it.

        Raises:
            CycleError: it names neither `version` nor `replaces`.
        """
        if self.champion == version:
            return
        if self.champion != replaces:
            raise CycleError(f"the alias was moved by hand to {self.champion}")
        self.champion = version

    def move_by_hand(self, version: str | None) -> None:
        """Roll back, as an operator does in the registry's own pages."""
        self.champion = version
        self.num_rollbacks += 1
