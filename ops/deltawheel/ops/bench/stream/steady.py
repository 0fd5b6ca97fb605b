"""A steady stream: prompts come at a fixed rate whatever becomes of them, and memory is watched.

Open loop: each prompt has the moment at which it is due, and its latency counts from there, so a
gateway that stalls makes the figures worse and not the load lighter.
"""

import http.client
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final
from urllib.parse import urlsplit

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.bench.stream.running import Stream
from deltawheel.ops.bench.stream.world import prompt_bodies

__all__ = ["Memory", "Steady", "run_steadily"]

_SENDERS: Final = 32
_LOOK_EVERY_S: Final = 0.02
_MEASURE_EVERY_S: Final = 5.0
_NUM_WINDOWS: Final = 5
_SAY_EVERY_S: Final = 60.0
_SETTLED_S: Final = 60.0
"""After the last prompt is due; by then every pair must be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The resident memory of every process at one moment, in MB of 10^6 bytes."""

    at_s: float
    rss_mb: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What a steady stream showed; latencies in seconds, from due to stored, in order of due."""

    rate: float
    latencies_s: Sequence[float]
    curve: Sequence[Memory]
    num_broker_restarts: int

    def latency_s(self, share: float) -> list[float]:
        """Return what this share of the prompts stayed within, in each fifth of the time."""
        size = math.ceil(len(self.latencies_s) / _NUM_WINDOWS)
        starts = range(0, len(self.latencies_s), size)
        windows = [sorted(self.latencies_s[start : start + size]) for start in starts]
        return [window[min(len(window) - 1, int(share * len(window)))] for window in windows]

    def peak_mb(self) -> dict[str, float]:
        """Return the most that each process took."""
        names = self.curve[-1].rss_mb
        return {name: max(each.rss_mb.get(name, 0.0) for each in self.curve) for name in names}

    def growth_mb(self) -> dict[str, float]:
        """Return the median of the last quarter less that of the second: what is left to grow."""
        quarter = max(1, len(self.curve) // 4)
        early, late = self.curve[quarter : 2 * quarter], self.curve[-quarter:]
        return {
            name: _median([each.rss_mb.get(name, 0.0) for each in late])
            - _median([each.rss_mb.get(name, 0.0) for each in early or late])
            for name in self.curve[-1].rss_mb
        }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def run_steadily(
    stream: Stream, *, rate: float, duration_s: float, say: Callable[[str], None]
) -> Steady:
    """Send prompts at a rate, one a request, and wait until all of their pairs are stored.

    Raises:
        DeltawheelError: a pair is missing a minute after the last prompt was due.
    """
    count = int(rate * duration_s)
    arrivals = _Arrivals(stream, rate=rate, first=stream.num_fed, count=count)
    with closing(_Stored(stream)) as stored:
        curve = _watch(stream, arrivals, stored, duration_s=duration_s, say=say)
    stream.fed(count)
    return Steady(
        rate=rate,
        latencies_s=[
            stored.at_s[prompt_id] - due_s
            for prompt_id, due_s in sorted(arrivals.due_s.items(), key=itemgetter(1))
        ],
        curve=curve,
        num_broker_restarts=stream.num_restarts("broker"),
    )


def _watch(
    stream: Stream,
    arrivals: "_Arrivals",
    stored: "_Stored",
    *,
    duration_s: float,
    say: Callable[[str], None],
) -> list[Memory]:
    """Send and look until everything is stored; return the memory meanwhile."""
    count = arrivals.count
    begun_s = stream.clock.monotonic()
    threads = arrivals.start()
    curve: list[Memory] = []
    next_measure_s, next_said_s = begun_s, begun_s + _SAY_EVERY_S
    while len(stored.at_s) < count:
        now_s = stream.clock.monotonic()
        if arrivals.failures or now_s > begun_s + duration_s + _SETTLED_S:
            why = arrivals.failures[0] if arrivals.failures else "pairs are missing"
            raise DeltawheelError(f"{len(stored.at_s)} of {count} pairs are stored: {why}")
        stored.look()
        if now_s >= next_measure_s:
            next_measure_s += _MEASURE_EVERY_S
            curve.append(Memory(at_s=now_s - begun_s, rss_mb=stream.rss_mb()))
        if now_s >= next_said_s:
            next_said_s += _SAY_EVERY_S
            say(f"{len(stored.at_s)} of {count} pairs after {now_s - begun_s:.0f} s")
        stream.clock.wait(_LOOK_EVERY_S)
    for thread in threads:
        thread.join()
    return curve


@dataclass
class _Stored:
    """When the pair of each prompt was first seen in the store, by a look every 20 ms."""

    stream: Stream
    at_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.stream.wheel.settings.state / "store.db"
        self._store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        [[self._last]] = self._store.execute("SELECT coalesce(max(rowid), 0) FROM pairs")

    def close(self) -> None:
        """Look no more."""
        self._store.close()

    def look(self) -> None:
        """Note what has come since the last look."""
        new = self._store.execute(
            "SELECT rowid, prompt_id FROM pairs WHERE rowid > ? ORDER BY rowid", (self._last,)
        ).fetchall()
        now_s = self.stream.clock.monotonic()
        for rowid, prompt_id in new:
            self._last = rowid
            self.at_s[prompt_id] = now_s


class _Arrivals:
    """Senders that hand in one prompt a request, each when it is due."""

    def __init__(self, stream: Stream, *, rate: float, first: int, count: int) -> None:
        self._clock = stream.clock
        self._address = urlsplit(stream.wheel.gateway_url).netloc
        self._rate = rate
        self.count = count
        self._bodies = list(prompt_bodies(first, count))
        self.due_s: dict[str, float] = {}
        self.failures: list[str] = []

    def start(self) -> list[threading.Thread]:
        """Begin now."""
        begun_s = self._clock.monotonic()
        threads = [
            threading.Thread(target=self._send, args=(begun_s, sender), daemon=True)
            for sender in range(_SENDERS)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _send(self, begun_s: float, sender: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        try:
            for index in range(sender, len(self._bodies), _SENDERS):
                due_s = begun_s + index / self._rate
                self._clock.wait(max(0.0, due_s - self._clock.monotonic()))
                self.due_s[self._submit(connection, index)] = due_s
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            self.failures.append(f"the gateway takes no prompt: {error!r}")
        finally:
            connection.close()

    def _submit(self, connection: http.client.HTTPConnection, index: int) -> str:
        body = json.dumps(self._bodies[index])
        connection.request("POST", "/v1/prompts", body, {"Content-Type": "application/json"})
        prompt_id: str = json.load(connection.getresponse())["accepted"][0]["prompt_id"]
        return prompt_id
