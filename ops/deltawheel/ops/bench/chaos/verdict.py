"""What the store holds after the storm: accounted for row by row, from outside the services."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Group, Store
from deltawheel.ops.bench.chaos.garbage import is_garbage, num_unburied
from deltawheel.ops.bench.chaos.wheel import DELTAWHEEL
from deltawheel.ops.bench.chaos.world import expected_outcome

__all__ = ["Verdict", "judge_store", "num_pairs_doubled", "run_audit"]

_PAGE: Final = 500
_ALL: Final = 10_000_000
_AUDIT_TIMEOUT_S: Final = 600
_FINAL_ANSWERS: Final = ("refuses the request", "something that is no chat completion")
"""In the reason of a slot that the faulty model server itself has ended, for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        prompts: Prompts that the store holds.
        outcomes: How many ended how.
        open: Prompts without an outcome, whether their 202 was seen or not; with expiry off and
            nothing left to do, they are lost.
        absent: Prompts that were answered with 202 and that the store does not hold.
        duplicates: Rows too many: pairs of the same two traces, and what the audit finds double.
        unexplained: Prompts that ended as neither they nor what their models answered explains.
        findings: What `deltawheel audit --deep` finds, as its sentences.
        unburied: Messages of garbage without a dead letter of each service that reads them.
        misburied: Dead letters of anything but garbage and traces that nobody can judge: a fault
            that would have passed has made them.
        dead_letters: All dead letters.
    """

    prompts: int
    outcomes: dict[str, int]
    open: int
    absent: int
    unexplained: int
    duplicates: int
    findings: tuple[str, ...]
    unburied: int
    misburied: int
    dead_letters: int

    @property
    def lost(self) -> int:
        """How many accepted prompts have no outcome."""
        return self.open + self.absent

    @property
    def paired(self) -> int:
        """How many prompts gave a pair; where none did, the run has shown nothing."""
        return self.outcomes.get(Outcome.PAIRED, 0)

    @property
    def is_clean(self) -> bool:
        """Whether pairs were stored, and nothing is lost, double, unexplained or dead in vain."""
        is_wrong = self.lost or self.duplicates or self.findings
        has_died_in_vain = self.unexplained or self.unburied or self.misburied
        return bool(self.paired) and not (is_wrong or has_died_in_vain)


def judge_store(
    store: Store,
    audit: Mapping[str, Any],
    *,
    accepted: Mapping[PromptKey, Mapping[str, Any]],
    num_garbage: int,
) -> Verdict:
    """Account for everything that was accepted.

    Args:
        store: Of the wheel, which has settled.
        audit: As `run_audit` returns it.
        accepted: What was submitted, by the key that its 202 named.
        num_garbage: How many messages of garbage were published.
    """
    findings = audit["findings"]
    letters = store.dead_letters(_ALL)
    doubled = sum(finding["kind"] == "double" for finding in findings)
    ends = _ends(store, accepted)
    return Verdict(
        prompts=audit["prompts"],
        outcomes=audit["outcomes"],
        open=max(ends[_End.OPEN], audit["in_flight"]),
        absent=ends[_End.ABSENT],
        unexplained=ends[_End.UNEXPLAINED],
        duplicates=doubled + num_pairs_doubled(_all_pairs(store)),
        findings=tuple(f"{one['prompt_id']}: {one['fact']}" for one in findings),
        unburied=num_unburied(letters, num_garbage),
        misburied=sum(not _is_due(letter, accepted) for letter in letters),
        dead_letters=len(letters),
    )


class _End(Enum):
    """How an accepted prompt stands."""

    ABSENT = auto()
    OPEN = auto()
    UNEXPLAINED = auto()
    EXPLAINED = auto()


def _ends(store: Store, accepted: Mapping[PromptKey, Mapping[str, Any]]) -> Counter[_End]:
    """Count how these prompts stand."""
    ends: Counter[_End] = Counter()
    keys = iter(accepted)
    while page := list(islice(keys, _PAGE)):
        groups = store.groups(page)
        ends.update(_end(groups.get(key), accepted[key]) for key in page)
    return ends


def _end(group: Group | None, body: Mapping[str, Any]) -> _End:
    if group is None:
        return _End.ABSENT
    if group.closing is None:
        return _End.OPEN
    is_explained = group.closing.outcome is expected_outcome(body) or _was_refused(group)
    return _End.EXPLAINED if is_explained else _End.UNEXPLAINED


def _was_refused(group: Group) -> bool:
    """Whether slots have failed, and all of them by an answer of their model that is final."""
    reasons = [failure.reason for failure in group.slot_failures]
    return bool(reasons) and all(
        any(fault in reason for fault in _FINAL_ANSWERS) for reason in reasons
    )


def _is_due(letter: DeadLetter, accepted: Mapping[PromptKey, Mapping[str, Any]]) -> bool:
    """Whether the letter is garbage, or a trace of a prompt that nobody can judge."""
    if is_garbage(letter):
        return True
    key = letter.prompt_key
    if letter.service != "judging" or key is None or key not in accepted:
        return False
    return expected_outcome(accepted[key]) is Outcome.DEAD_LETTERED


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


def run_audit(config: Path) -> dict[str, Any]:
    """Run the command that an operator would run, on rows, payloads and topics.

    Raises:
        DeltawheelError: it cannot be run, or has not reached the topics.
    """
    done = subprocess.run(
        [DELTAWHEEL, "--config", str(config), "audit", "--deep", "--json"],
        capture_output=True,
        text=True,
        timeout=_AUDIT_TIMEOUT_S,
        check=False,
    )
    try:
        audit: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise DeltawheelError(f"deltawheel audit says {done.stderr or done.stdout!r}") from error
    if audit["topics"] is None:
        raise DeltawheelError(f"audit read no topics: {audit['offsets_unknown_because']}")
    return audit
