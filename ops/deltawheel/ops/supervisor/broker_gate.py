"""Whether services may run: not before the broker holds the topics and every owed event."""

from typing import Final

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.ops.supervisor.background import BackgroundCall

__all__ = ["BrokerGate"]

RETRY_S: Final = 0.5
GIVE_UP_AFTER_S: Final = 60.0


class BrokerGate:
    """Opens when the broker has been prepared, closes when a memory-only broker is lost."""

    def __init__(self, prepare: BackgroundCall[None]) -> None:
        self._prepare = prepare
        self._is_stale = False
        self._next_try_at_s = 0.0
        self._first_try_at_s: float | None = None
        self.is_open = False

    def close(self) -> None:
        """Let no service start until the broker has been prepared anew."""
        self.is_open = False
        self._is_stale = self._prepare.is_under_way
        self._first_try_at_s = None

    def tick(self, now_s: float, *, may_prepare: bool) -> None:
        """Prepare the broker where that is due.

        Args:
            now_s: The time, in seconds.
            may_prepare: The broker is ready, and no service runs.

        Raises:
            DeltawheelError: it cannot be prepared, or not within a minute of the first try.
        """
        finished = self._prepare.take()
        if finished is not None:
            error = finished.exception()
            if isinstance(error, RetryLaterError):
                self._defer(now_s, error)
            elif error is not None and not self._is_stale:
                raise error
            elif not self._is_stale:
                self.is_open = True
            self._is_stale = False
        if may_prepare and not self.is_open and now_s >= self._next_try_at_s:
            if self._first_try_at_s is None:
                self._first_try_at_s = now_s
            self._prepare.start()

    def _defer(self, now_s: float, error: RetryLaterError) -> None:
        first_s = now_s if self._first_try_at_s is None else self._first_try_at_s
        if not self._is_stale and now_s - first_s > GIVE_UP_AFTER_S:
            raise DeltawheelError(
                f"the broker could not be prepared within {GIVE_UP_AFTER_S:g} s: {error}; "
                "look into its log, or check broker.bootstrap"
            ) from error
        self._next_try_at_s = now_s + RETRY_S
