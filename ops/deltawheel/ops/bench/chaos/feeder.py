"""Clients that do not give up: prompts are in flight all the time, unanswered ones come again."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.gateway_client import RefusedPromptsError
from deltawheel.ops.feeding import Gateway

__all__ = ["Feeder"]

_BATCH: Final = 5
_NUM_CLIENTS: Final = 2
_PAUSE_S: Final = 0.5
_RETRY_S: Final = 0.2
_STOP_TIMEOUT_S: Final = 180.0


class Feeder:
    """Submits prompts at a steady rate, some 20 a second, while fewer than `most_open` are open.

    Args:
        bodies: What to submit; each once, however often it takes.
        find_gateway: Returns the gateway of the run that is on, or None while there is none.
        most_open: Open prompts from which on nothing more is submitted.
        clock: Time.

    Attributes:
        accepted: What was submitted, by the key that its 202 named.
        num_open: How many prompts are open, as the caller has last seen them in the store.
        stopped_at_s: When the last answer had come, seconds of the clock.
        unanswered: How often a batch stayed unanswered and was submitted again, by the reason.
    """

    def __init__(
        self,
        bodies: Iterator[Mapping[str, Any]],
        *,
        find_gateway: Callable[[], Gateway | None],
        most_open: int,
        clock: Clock,
    ) -> None:
        self.accepted: dict[PromptKey, Mapping[str, Any]] = {}
        self.num_open = 0
        self.unanswered: Counter[str] = Counter()
        self.stopped_at_s = 0.0
        self._bodies = bodies
        self._find_gateway = find_gateway
        self._most_open = most_open
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"client-{number}", daemon=True)
            for number in range(_NUM_CLIENTS)
        ]

    @property
    def has_failed(self) -> bool:
        """Whether the gateway has refused what is valid."""
        return self._failure is not None

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Submit what was begun until it is answered, and nothing more.

        Raises:
            DeltawheelError: it is not answered within minutes, or was refused.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)
        self.stopped_at_s = self._clock.monotonic()
        if self._failure is not None:
            raise DeltawheelError(f"the gateway refused what is valid: {self._failure}")
        if any(thread.is_alive() for thread in self._threads):
            raise DeltawheelError(f"the gateway has answered nothing for {_STOP_TIMEOUT_S:g} s")

    def _work(self) -> None:
        while not self._stop.is_set():
            self._clock.wait(_PAUSE_S)
            if self.num_open >= self._most_open:
                continue
            with self._lock:
                batch = list(islice(self._bodies, _BATCH))
            try:
                self._submit(batch)
            except RefusedPromptsError as error:
                self._failure = error
                return

    def _submit(self, batch: Sequence[Mapping[str, Any]]) -> None:
        """Submit one batch until it is answered.

        Raises:
            RefusedPromptsError: the gateway finds it wrong, which it is not.
        """
        while True:
            gateway = self._find_gateway()
            try:
                answers = gateway.submit(batch) if gateway is not None else None
            except RefusedPromptsError:
                raise
            except DeltawheelError as error:
                with self._lock:
                    self.unanswered[type(error).__name__] += 1
                answers = None
            if answers is not None:
                with self._lock:
                    for one, body in zip(answers, batch, strict=True):
                        self.accepted[PromptKey(one["prompt_id"], one["round"])] = body
                    self.num_open += len(answers)
                return
            self._clock.wait(_RETRY_S)
