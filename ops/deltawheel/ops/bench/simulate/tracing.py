"""What happened, in order: the same seed must write the same lines, whatever machine it runs on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Trace"]


@dataclass(slots=True)
class Trace:
    """The lines of one run, each with its virtual second and who did it."""

    now_s: Callable[[], float]
    lines: list[str] = field(default_factory=list)

    def note(self, who: str, what: str) -> None:
        """Write down one event."""
        self.lines.append(f"{self.now_s():12.6f}  {who:<14} {what}")

    @property
    def digest(self) -> str:
        """Name the run: two with the same digest went the same way, event by event."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
