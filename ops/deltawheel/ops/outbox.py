"""Publishing from a command: the broker may run, or not."""

from collections.abc import Callable, Sequence

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.ports import Producer
from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.infra import wiring
from deltawheel.ops.supervisor.plan import run_folder
from deltawheel.ops.supervisor.runfile import read_run

__all__ = ["Outbox"]


class Outbox:
    """The way to the wheel's broker, tried when there is something to publish, and given up once.

    Attributes:
        fault: Why it cannot be reached; None while that is not known to be so.
        num_published: How many messages it has acknowledged.
    """

    def __init__(self, connect: Callable[[], Producer]) -> None:
        self._connect = connect
        self._producer: Producer | None = None
        self.fault: str | None = None
        self.num_published = 0

    @classmethod
    def of(cls, settings: Settings) -> "Outbox":
        """Return the way to a wheel's broker, whatever its port is in this run."""
        return cls(lambda: wiring.open_producer(_as_running(settings), timeout_s=10))

    def publish(self, messages: Sequence[OutboundMessage]) -> bool:
        """Return whether all of these were acknowledged."""
        if not messages or self.fault is not None:
            return not messages
        try:
            self._producer = self._producer or self._connect()
            self._producer.publish(messages)
        except (InvalidRecordError, RetryLaterError) as error:
            self.fault = str(error)
            return False
        self.num_published += len(messages)
        return True

    def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            self._producer.close()


def _as_running(settings: Settings) -> Settings:
    if read_run(settings) is not None:
        return wiring.load_settings(run_folder(settings) / "settings.yaml")
    if settings.broker.kind is not BrokerKind.KAFKA:
        raise RetryLaterError(
            "the wheel is stopped, and its broker with it: `deltawheel up` starts them"
        )
    return settings
