"""Calls that may block, made beside the watch loop so that it never waits for them."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

__all__ = ["BackgroundCall"]

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """One function, called in another thread, at most once at a time."""

    def __init__(self, executor: Executor, function: Callable[[], T]) -> None:
        self._executor = executor
        self._function = function
        self._future: Future[T] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it has been called and its result not been taken."""
        return self._future is not None

    def start(self) -> None:
        """Call it, unless that is under way."""
        if self._future is None:
            self._future = self._executor.submit(self._function)

    def take(self) -> Future[T] | None:
        """Return the finished call, once; nothing while it is under way or was not started."""
        if self._future is None or not self._future.done():
            return None
        finished, self._future = self._future, None
        return finished
