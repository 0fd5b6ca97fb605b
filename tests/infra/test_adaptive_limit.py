"""The limit beside simulated servers: it finds their place and never falls to nothing."""

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.infra.adaptive_limit import AdaptiveLimit


@dataclass
class Server:
    """Answers so many at a time, lets so many wait, and sheds the rest at once."""

    places: int
    queue: int
    seconds: float = 1.0
    now_s: float = 0.0
    num_answered: int = 0
    num_shed: int = 0
    _ends: list[float] = field(default_factory=list)

    def serve(self, limit: AdaptiveLimit, requests: int) -> None:
        """Give it requests as fast as the limit admits them; a shed one comes back later."""
        left = requests
        while left:
            while left and limit.admit():
                if len(self._ends) >= self.places + self.queue:
                    self.num_shed += 1
                    limit.refused()
                    break  # whoever was shed waits a little
                begin_s = self.now_s
                if len(self._ends) >= self.places:
                    begin_s = sorted(self._ends)[-self.places]
                heapq.heappush(self._ends, begin_s + self.seconds)
                left -= 1
            self.now_s = heapq.heappop(self._ends)
            self.num_answered += 1
            limit.answered()
        while self._ends:
            self.now_s = heapq.heappop(self._ends)
            self.num_answered += 1
            limit.answered()

    @property
    def rate(self) -> float:
        return self.num_answered / self.now_s


@pytest.mark.parametrize("queue", [0, 4, 16])
@pytest.mark.parametrize("ceiling", [8, 32, 256])
def test_server_that_sheds_is_kept_as_busy_as_by_the_best_fixed_limit(
    ceiling: int, queue: int
) -> None:
    server = Server(places=16, queue=queue)
    limit = AdaptiveLimit(ceiling)
    server.serve(limit, 4_000)
    best = min(ceiling, 16) / server.seconds
    assert server.rate >= 0.95 * best
    assert server.num_shed <= 0.1 * server.num_answered


def test_server_that_takes_everything_is_given_everything() -> None:
    limit = AdaptiveLimit(64)
    Server(places=8, queue=1_000).serve(limit, 1_000)
    assert limit.limit == 64


def test_server_that_recovers_gets_its_place_back() -> None:
    limit = AdaptiveLimit(32)
    Server(places=2, queue=0).serve(limit, 200)
    assert limit.limit <= 4
    Server(places=32, queue=0).serve(limit, 3_000)
    assert limit.limit >= 31


def test_what_is_left_after_a_burst_is_what_the_server_took() -> None:
    limit = AdaptiveLimit(64)
    assert all(limit.admit() for _ in range(64))
    for _ in range(54):
        limit.refused()
    assert (limit.limit, limit.in_flight) == (10, 10)


def test_limit_rises_only_where_somebody_had_to_wait_and_ever_faster() -> None:
    limit = AdaptiveLimit(64)
    assert all(limit.admit() for _ in range(3))
    for _ in range(3):
        limit.refused()
    seen = []
    for _ in range(4):
        while limit.admit():
            pass
        for _ in range(limit.limit):
            limit.answered()
        seen.append(limit.limit)
    assert seen == [2, 4, 8, 16]
    for _ in range(100):
        assert limit.admit()
        limit.answered()
    assert limit.limit == 16


def test_round_of_which_half_came_late_lowers_the_limit_by_a_tenth_and_fewer_do_nothing() -> None:
    limit = AdaptiveLimit(20)
    for num_late, wanted in ((9, 20), (10, 18), (18, 16)):
        for n in range(limit.limit):
            assert limit.admit()
            limit.answered(is_late=n < num_late)
        assert limit.limit == wanted


def test_what_says_nothing_of_the_server_changes_nothing() -> None:
    limit = AdaptiveLimit(4)
    for _ in range(100):
        assert limit.admit()
        limit.abandoned()
    assert (limit.limit, limit.in_flight) == (4, 0)


@given(st.integers(1, 40), st.lists(st.sampled_from(["admit", "answered", "refused", "abandoned"])))
def test_any_history_leaves_at_least_one_and_at_most_the_ceiling(
    ceiling: int, history: list[str]
) -> None:
    limit = AdaptiveLimit(ceiling)
    for event in history:
        if event == "admit":
            limit.admit()
        elif limit.in_flight:
            getattr(limit, event)()
        assert 1 <= limit.limit <= ceiling
        assert limit.in_flight >= 0
    while limit.in_flight:
        limit.answered()
    assert limit.admit()


def test_no_request_at_all_is_no_ceiling() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AdaptiveLimit(0)
