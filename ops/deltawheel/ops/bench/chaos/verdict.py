"""What the store holds after the storm: accounted for row by row, from outside the services."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Store
from deltawheel.ops.bench.chaos.garbage import num_unburied
from deltawheel.ops.bench.chaos.wheel import DELTAWHEEL

__all__ = ["Verdict", "judge_store", "num_pairs_doubled"]

_PAGE: Final = 500
_ALL: Final = 10_000_000
_AUDIT_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        prompts: Prompts that the store holds.
        outcomes: How many ended how.
        open: Prompts without an outcome; with expiry off and nothing left to do, they are lost.
        absent: Prompts that were answered with 202 and that the store does not hold.
        duplicates: Rows too many: pairs of the same two traces, and what the audit finds double.
        findings: What `deltawheel audit` finds, as its sentences.
        unburied: Messages of garbage without a dead letter of each service that reads them.
        dead_letters: Dead letters, of garbage and of prompts that nobody can judge.
    """

    prompts: int
    outcomes: dict[str, int]
    open: int
    absent: int
    duplicates: int
    findings: tuple[str, ...]
    unburied: int
    dead_letters: int

    @property
    def lost(self) -> int:
        """How many accepted prompts have no outcome."""
        return self.open + self.absent

    @property
    def is_clean(self) -> bool:
        """Whether nothing is lost, double or unexplained."""
        return not (self.lost or self.duplicates or self.findings or self.unburied)


def judge_store(
    store: Store, config: Path, *, accepted: set[tuple[str, int]], num_garbage: int
) -> Verdict:
    """Account for everything that was accepted.

    Raises:
        DeltawheelError: the audit cannot be run.
    """
    audit = _audit(config)
    findings = audit["findings"]
    letters = store.dead_letters(_ALL)
    doubled = sum(finding["kind"] == "double" for finding in findings)
    num_open, num_absent = _count_missing(store, accepted)
    return Verdict(
        prompts=audit["prompts"],
        outcomes=audit["outcomes"],
        open=num_open,
        absent=num_absent,
        duplicates=doubled + num_pairs_doubled(_all_pairs(store)),
        findings=tuple(f"{one['prompt_id']}: {one['fact']}" for one in findings),
        unburied=num_unburied(letters, num_garbage),
        dead_letters=len(letters),
    )


def _count_missing(store: Store, accepted: Iterable[tuple[str, int]]) -> tuple[int, int]:
    """Return how many of these prompts are open, and how many are not there at all."""
    num_open = num_absent = 0
    keys = (PromptKey(*key) for key in accepted)
    while page := list(islice(keys, _PAGE)):
        groups = store.groups(page)
        num_absent += len(page) - len(groups)
        num_open += sum(group.closing is None for group in groups.values())
    return num_open, num_absent


def _all_pairs(store: Store) -> Iterator[PreferencePair]:
    last: str | None = None
    while page := store.pairs(after=last, limit=_PAGE):
        yield from page
        last = page[-1].pair_id


def num_pairs_doubled(pairs: Iterable[PreferencePair]) -> int:
    """Return how many pairs hold the same two traces as another, whichever way round."""
    sides = Counter(
        frozenset((pair.chosen.trace.trace_id, pair.rejected.trace.trace_id)) for pair in pairs
    )
    return sum(count - 1 for count in sides.values())


def _audit(config: Path) -> dict[str, Any]:
    """Run the command that an operator would run."""
    done = subprocess.run(
        [DELTAWHEEL, "--config", str(config), "audit", "--json"],
        capture_output=True,
        text=True,
        timeout=_AUDIT_TIMEOUT_S,
        check=False,
    )
    try:
        audit: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise DeltawheelError(f"deltawheel audit says {done.stderr or done.stdout!r}") from error
    return audit
