"""The ledger as handlers use it: one record at a time, in one transaction for many of them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.clock import Clock
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Group, Ledger
from deltawheel.contracts.trace import Trace
from deltawheel.services.runtime.batching import MicroBatcher, batched_in_a_thread

__all__ = ["BatchedLedger"]

_MAX_ITEMS = 500
"""Records of one transaction: enough to make its cost negligible, few enough to be short."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchedLedger:
    """Gathers what concurrent records ask of the ledger; see `contracts.store.Ledger`.

    A transaction costs nearly the same for one row as for a hundred, so each kind of call takes
    whatever has come while the one before was under way. Nothing waits for others to come.
    """

    def __init__(self, ledger: Ledger, *, clock: Clock) -> None:
        def batched(
            run: Callable[[Sequence[Item]], Sequence[Result]],
        ) -> MicroBatcher[Item, Result]:
            return batched_in_a_thread(run, max_items=_MAX_ITEMS, clock=clock)

        def groups(keys: Sequence[PromptKey]) -> Sequence[Group | None]:
            found = ledger.groups(keys)
            return [found.get(key) for key in keys]

        self.group: MicroBatcher[PromptKey, Group | None] = batched(groups)
        self.add_assignment: MicroBatcher[Assignment, Assignment] = batched(ledger.add_assignments)
        self.add_trace: MicroBatcher[Trace, Trace] = batched(ledger.add_traces)
        self.add_judgement: MicroBatcher[Judgement, Judgement] = batched(ledger.add_judgements)
        self.add_slot_failure: MicroBatcher[SlotFailed, SlotFailed | Judgement] = batched(
            ledger.add_slot_failures
        )
        self.add_prompt_failure: MicroBatcher[PromptFailed, PromptFailed] = batched(
            ledger.add_prompt_failures
        )
