"""Services wait for the broker's topics and the owed events."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.ops.supervisor.background import BackgroundCall
from deltawheel.ops.supervisor.broker_gate import BrokerGate


class StepByStep(Executor):
    """Runs what was submitted only when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, function))
        return future

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future, function in waiting:
            try:
                future.set_result(function())
            except DeltawheelError as error:
                future.set_exception(error)


class Preparation:
    """Counts its calls, and fails while it has errors left."""

    def __init__(self, *errors: DeltawheelError) -> None:
        self.errors = list(errors)
        self.num_calls = 0

    def __call__(self) -> None:
        self.num_calls += 1
        if self.errors:
            raise self.errors.pop(0)


def a_gate(preparation: Preparation) -> tuple[BrokerGate, StepByStep]:
    executor = StepByStep()
    return BrokerGate(BackgroundCall(executor, preparation)), executor


def turn(gate: BrokerGate, executor: StepByStep, now_s: float) -> None:
    gate.tick(now_s, may_prepare=True)
    executor.run()


def test_gate_opens_when_the_broker_has_been_prepared() -> None:
    gate, executor = a_gate(Preparation())
    gate.tick(0, may_prepare=False)
    assert executor.waiting == []
    gate.tick(1, may_prepare=True)
    assert not gate.is_open
    executor.run()
    gate.tick(2, may_prepare=True)
    assert gate.is_open


def test_open_gate_prepares_nothing_more() -> None:
    preparation = Preparation()
    gate, executor = a_gate(preparation)
    for now in range(5):
        turn(gate, executor, now)
    assert preparation.num_calls == 1


def test_lost_broker_is_prepared_anew() -> None:
    preparation = Preparation()
    gate, executor = a_gate(preparation)
    for now in range(3):
        turn(gate, executor, now)
    gate.close()
    assert not gate.is_open
    for now in range(3, 6):
        turn(gate, executor, now)
    assert gate.is_open
    assert preparation.num_calls == 2


def test_preparation_of_a_broker_that_was_lost_meanwhile_does_not_count() -> None:
    preparation = Preparation()
    gate, executor = a_gate(preparation)
    gate.tick(0, may_prepare=True)
    gate.close()
    executor.run()
    gate.tick(1, may_prepare=False)
    assert not gate.is_open
    gate.tick(2, may_prepare=True)
    executor.run()
    gate.tick(3, may_prepare=True)
    assert gate.is_open
    assert preparation.num_calls == 2


def test_broker_that_is_not_there_yet_is_tried_again() -> None:
    gate, executor = a_gate(Preparation(RetryLaterError("no"), RetryLaterError("no")))
    for now in range(5):
        turn(gate, executor, now)
    gate.tick(5, may_prepare=True)
    assert gate.is_open


def test_broker_that_never_comes_ends_the_run_with_a_sentence() -> None:
    gate, executor = a_gate(Preparation(*[RetryLaterError("no broker at x:1")] * 99))
    for now in range(61):
        turn(gate, executor, now)
    with pytest.raises(DeltawheelError, match="within 60 s: no broker at x:1; look into its log"):
        turn(gate, executor, 61)


def test_store_that_cannot_be_read_ends_the_run() -> None:
    gate, executor = a_gate(Preparation(DeltawheelError("store.db is no database")))
    gate.tick(0, may_prepare=True)
    executor.run()
    with pytest.raises(DeltawheelError, match="is no database"):
        gate.tick(1, may_prepare=True)
