"""How many requests a server is given at the same time, found out from what it does with them.

No clock, no task and no randomness in here; `server_gate` is the shell around it.
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["AdaptiveLimit"]

_LATE_CUT: Final = 0.9


@dataclass(slots=True)
class AdaptiveLimit:
    """A server that refuses a request has said how many it takes: those that it is busy with.

    So a refusal sets the limit to what is under way beside it, and however many are refused
    together, what is left is what was taken. Halving, as for a network (RFC 5681), would leave
    a part of the server unused until it has grown back. After a round (as many answers as the
    limit) without refusal, in which somebody had to wait, the limit rises by one, and after each
    further one by twice as much as before: one request in a round is the price of knowing whether
    there is more room, and a server that was away has its place back in a few rounds.

    Args:
        ceiling: The most that may ever be under way; where it begins.
    """

    ceiling: int
    limit: int = field(init=False)
    in_flight: int = field(default=0, init=False)
    _step: int = field(default=1, init=False)
    _num_answers: int = field(default=0, init=False)
    _num_late: int = field(default=0, init=False)
    _has_waited: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.ceiling < 1:
            raise ValueError(f"ceiling is {self.ceiling}; at least one request must be allowed")
        self.limit = self.ceiling

    def admit(self) -> bool:
        """Whether to send a request now; whoever hears yes tells how it ended."""
        if self.in_flight >= self.limit:
            self._has_waited = True
            return False
        self.in_flight += 1
        return True

    def answered(self, *, is_late: bool = False) -> None:
        """A request was answered, in good time or so late that more would be thrown away."""
        self.in_flight -= 1
        self._num_answers += 1
        self._num_late += is_late
        if self._num_answers < self.limit:
            return
        if 2 * self._num_late >= self._num_answers:
            self.limit = max(1, round(_LATE_CUT * self.limit))
            self._step = 1
        elif self._has_waited:
            self.limit = min(self.ceiling, self.limit + self._step)
            self._step *= 2
        self._begin_round()

    def refused(self) -> None:
        """The server shed the request, or did not answer it in time."""
        self.in_flight -= 1
        self.limit = max(1, min(self.limit, self.in_flight))
        self._step = 1
        self._begin_round()

    def abandoned(self) -> None:
        """A request ended in a way that says nothing of how busy the server is."""
        self.in_flight -= 1

    def _begin_round(self) -> None:
        self._num_answers = self._num_late = 0
        self._has_waited = False
