"""When a record is deferred, and when it is tried again: no clock or randomness in here."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage, key_of
from deltawheel.contracts.interruptions import Deferral
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import RuntimeSettings
from deltawheel.services.runtime.backoff import retry_pause_s
from deltawheel.services.runtime.dead_letters import as_text

__all__ = ["Patience", "deferral_of", "put_off"]

_MAX_REASON_CHARS = 2_000


@dataclass(slots=True)
class Patience:
    """What one record has cost so far.

    A failure counts against the record only if, since the one before, others have succeeded at
    what it failed at. While nobody succeeds, the world is not ready, and no record is to blame.
    """

    num_tries: int = 0
    num_own_failures: int = 0
    _dependency: str | None = None
    _num_successes: int | None = None

    def fail(self, dependency: str | None, num_successes: int) -> None:
        """A try has failed at this dependency, which has answered others so often by now."""
        is_same = self._num_successes is not None and dependency == self._dependency
        if is_same and num_successes > (self._num_successes or 0):
            self.num_own_failures += 1
        self.num_tries += 1
        self._dependency, self._num_successes = dependency, num_successes


def deferral_of(
    message: InboundMessage,
    record: Record,
    error: RetryLaterError,
    *,
    service: str,
    num_tries: int,
    at: datetime,
    settings: RuntimeSettings,
    is_down: bool,
    jitter: float,
) -> Deferral:
    """Return the row of a record that failed too often, or whose dependency is down."""
    fresh = Deferral(
        message=message,
        service=service,
        reason="",
        dependency=None,
        tries=0,
        prompt_key=key_of(record),
        deferred_at=at,
        due_at=at,
        deadline_at=at + timedelta(seconds=settings.defer_deadline_s),
    )
    failed = put_off(fresh, error, at=at, settings=settings, is_down=is_down, jitter=jitter)
    return replace(failed, tries=num_tries)


def put_off(
    deferral: Deferral,
    error: RetryLaterError,
    *,
    at: datetime,
    settings: RuntimeSettings,
    is_down: bool,
    jitter: float,
) -> Deferral:
    """Return the row after one more failure.

    One whose dependency is down is due as soon as that is up, and is not blamed for the try.
    """
    pause_s = retry_pause_s(
        deferral.tries,
        base_s=settings.defer_base_s,
        cap_s=settings.defer_cap_s,
        jitter=jitter,
        at_least_s=error.retry_after_s,
    )
    return replace(
        deferral,
        reason=as_text(str(error)[:_MAX_REASON_CHARS]),
        dependency=error.dependency,
        tries=deferral.tries if is_down else deferral.tries + 1,
        due_at=at if is_down else at + timedelta(seconds=pause_s),
    )
