"""Randomness of which nothing is left to chance: tokens come from the seed as well."""

from deltawheel.infra.clock import SystemRandom

__all__ = ["SeededRandom"]


class SeededRandom(SystemRandom):
    """The `Random` port of a simulation. Its tokens can be guessed, and must be, to be replayed."""

    def token(self) -> str:
        """Return 128 bits of the seed's as hex digits."""
        return f"{self._random.getrandbits(128):032x}"

    def seeded(self, seed: int | str) -> "SeededRandom":
        """Return a generator of its own that gives the same values for the same seed."""
        return SeededRandom(seed)
