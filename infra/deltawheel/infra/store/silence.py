"""A PostgreSQL that falls silent: how long one of its connections is listened to."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

from psycopg import Connection, OperationalError

__all__ = ["ListeningConnection"]

R = TypeVar("R")


class ListeningConnection(Connection[Any]):
    """A connection that gives up once nothing has come for too long.

    TCP's keepalives find a host that is gone. A server that is stopped, or whose disk hangs, has a
    kernel that acknowledges all the same, and no timeout of its own can end its statements: only
    a clock on this side tells. The driver looks at it ten times a second.
    """

    max_silence_s: float | None = None
    """None listens for ever, to statements that may take long."""

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **options: Any) -> R:  # noqa: ANN401
        """Let the driver wait for an answer.

        Raises:
            OperationalError: none came. Whether the statement was carried out nobody knows, and
                the connection is closed.
        """
        return super().wait(self._listening(gen), *args, **options)

    def _listening(self, answer: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        heard_at = time.monotonic()
        try:
            wanted = next(answer)
            while True:
                if ready := (yield wanted):
                    heard_at = time.monotonic()
                elif self._is_too_long(time.monotonic() - heard_at):
                    self.close()
                    raise OperationalError(f"it has said nothing for {self.max_silence_s:g} s")
                wanted = answer.send(ready)
        except StopIteration as end:
            returned: R = end.value
            return returned

    def _is_too_long(self, silence_s: float) -> bool:
        return self.max_silence_s is not None and silence_s > self.max_silence_s
