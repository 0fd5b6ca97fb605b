"""The model registry as a cycle sees it: versions, and an alias that people can move."""

from dataclasses import dataclass, field

from deltawheel.contracts.errors import CycleError

__all__ = ["Move", "SimulatedRegistry"]


@dataclass(frozen=True, slots=True)
class Move:
    """Where the alias was pointed, and by whom; no version is the base."""

    version: str | None
    is_by_hand: bool


@dataclass(slots=True)
class SimulatedRegistry:
    """Creates are searched for by the cycle's id first; see `contracts.ports.Registry`."""

    versions: dict[str, str] = field(default_factory=dict)
    """By the cycle that made them."""
    moves: list[Move] = field(default_factory=list)
    """Of the alias, in their order."""

    @property
    def champion(self) -> str | None:
        """The version that the alias names; none is the base."""
        return self.moves[-1].version if self.moves else None

    @property
    def num_rollbacks(self) -> int:
        """How often an operator has moved the alias."""
        return sum(move.is_by_hand for move in self.moves)

    def add_version(self, cycle_id: str) -> str:
        """Make the version of a cycle, once."""
        return self.versions.setdefault(cycle_id, str(len(self.versions) + 1))

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        """Point the alias at the version, unless somebody has moved it.

        Raises:
            CycleError: it names neither `version` nor `replaces`.
        """
        if self.champion not in {version, replaces}:
            raise CycleError(f"the alias was moved by hand to {self.champion}")
        self.moves.append(Move(version, is_by_hand=False))

    def move_by_hand(self, version: str | None) -> None:
        """Roll back, as an operator does in the registry's own pages."""
        self.moves.append(Move(version, is_by_hand=True))
