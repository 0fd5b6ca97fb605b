"""Stores filled so far, and threads that start at one moment."""

import random
import string
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.store import Store
from deltawheel.contracts.transition import Transition, TransitionKind
from tests.records import a_judgement, a_prompt, a_trace, an_assignment, seconds

LATER = seconds(1000)
TOO_LONG_ID = "".join(random.Random(0).choices(string.ascii_letters, k=6_000))
"""PostgreSQL compresses what it indexes, but this cannot be compressed enough."""


def add_asked(store: Store, prompt: Prompt | None = None) -> Prompt:
    """Store a prompt with its assignment."""
    prompt = prompt or a_prompt()
    store.add_prompts([prompt])
    store.add_assignments([an_assignment(prompt)])
    return prompt


def add_judged(store: Store, prompt: Prompt | None = None) -> Prompt:
    """Store a prompt whose slots have both been judged."""
    prompt = add_asked(store, prompt)
    for slot in (0, 1):
        trace = store.add_traces([a_trace(an_assignment(prompt), slot)])[0]
        store.add_judgements([a_judgement(trace)])
    return prompt


def open_next(
    store: Store, *prompts: Prompt, kind: TransitionKind = TransitionKind.REPLAY
) -> list[Transition]:
    """Have an operator open the next attempt at these."""
    return store.open_attempts(
        [prompt.key for prompt in prompts],
        kind=kind,
        by="ann",
        reason="the judge is mended",
        at=LATER,
        expires_at=LATER + timedelta(hours=1),
    )


def in_threads(count: int, work: Callable[[int], object]) -> list[Any]:
    """Start the work in so many threads at one moment; return what they got."""
    barrier = Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait()
        results[index] = work(index)

    threads = [Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
