"""Waiting for a condition, with a deadline and without guessing how long things take."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], *, timeout_s: float = 60.0, what: str = "") -> T:
    """Return the first truthy value that `look` gives, asked twenty times a second."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := look():
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what or look}"
        time.sleep(0.05)
