"""The error tree: what went wrong is told by the class, what to do about it by the message.

The runtime loop reads the first two as instructions (ARCHITECTURE §7): a handler that raises
`InvalidRecordError` asks for a dead letter, one that raises `RetryLaterError` for another try.
Anything else stops the process without committing, because nobody knows what it means.
"""

from enum import IntEnum
from typing import Final

__all__ = [
    "BROKER",
    "STORE",
    "ConfigError",
    "CycleError",
    "DeltawheelError",
    "ExitCode",
    "ForeignModelError",
    "InvalidRecordError",
    "RetryLaterError",
]


STORE: Final = "store"
BROKER: Final = "broker"
"""What every record needs, as `RetryLaterError.dependency` names it."""


class ExitCode(IntEnum):
    """What a command's exit status tells a script."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    REJECTED = 3
    INCONCLUSIVE = 4


class DeltawheelError(Exception):
    """Root of every error that Deltawheel raises on purpose; its text is fit for an operator."""

    exit_code: ExitCode = ExitCode.FAILURE


class InvalidRecordError(DeltawheelError):
    """The record is wrong and always will be: it becomes a dead letter with this reason."""


class RetryLaterError(DeltawheelError):
    """The world is not ready: the record keeps its offset and is tried again after a pause.

    `retry_after_s` is what the other side asked for (HTTP `Retry-After`), in seconds. `dependency`
    names what is not ready (`store`, `broker`, a model server), where that is known: enough of
    them in a row open its circuit breaker.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        dependency: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.dependency = dependency


class ForeignModelError(RetryLaterError):
    """Another model than the one that was asked has answered under its name.

    The server is well, so this says nothing of its breaker; the member it was said of leaves the
    pool until the right model answers again.
    """


class ConfigError(DeltawheelError):
    """The operator must change something; the message says which key and what would be valid."""

    exit_code = ExitCode.USAGE


class CycleError(DeltawheelError):
    """A training cycle cannot go on; the cycle's row says which step and why."""
