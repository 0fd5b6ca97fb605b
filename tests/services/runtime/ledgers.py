"""A ledger in memory, as far as the loop needs one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.errors import STORE, RetryLaterError
from deltawheel.contracts.interruptions import Backlog, Deferral, Halt, Outage
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.record import Record


@dataclass
class FakeLedger:
    """Keeps everything in lists, and writes down in which order letters came.

    While it `is_down`, every call fails; `knows` says of which records the store holds the subject.
    """

    done: list[str] = field(default_factory=list)
    stored: list[tuple[DeadLetter, SlotFailed | None]] = field(default_factory=list)
    earlier_end: Judgement | None = None
    knows: Callable[[Record], bool] = lambda record: False
    is_down: bool = False
    spans: dict[tuple[str, datetime], Outage] = field(default_factory=dict)
    deferrals: dict[str, Deferral] = field(default_factory=dict)
    open_halts: list[Halt] = field(default_factory=list)
    unsent: list[DeadLetter] = field(default_factory=list)
    interrupted: timedelta = timedelta(0)
    num_calls: int = 0

    def _check(self) -> None:
        self.num_calls += 1
        if self.is_down:
            raise RetryLaterError("no store", dependency=STORE)

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        self._check()
        return [self._bury(burial) for burial in burials]

    def _bury(self, burial: Burial) -> list[SlotFailed | Judgement]:
        letter, slot_failures = burial.letter, burial.slot_failures
        self.done.append("letter")
        self.stored.append((letter, next(iter(slot_failures), None)))
        if letter.letter_id not in {each.letter_id for each in self.unsent}:
            self.unsent.append(letter)
        if burial.deferral_id is not None:
            self.end_deferrals([burial.deferral_id])
        return [self.earlier_end or failure for failure in slot_failures]

    def note_outages(self, outages: Sequence[Outage]) -> None:
        self._check()
        self.spans |= {(each.dependency, each.began_at): each for each in outages}

    def outages(self, *, since: datetime) -> list[Outage]:
        return list(self.spans.values())

    def interruption(
        self, since: datetime, until: datetime, *, dependency: str | None
    ) -> timedelta:
        return self.interrupted

    def add_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        self._check()
        for deferral in deferrals:
            self.deferrals.setdefault(deferral.deferral_id, deferral)

    def claim_deferrals(
        self,
        service: str,
        *,
        at: datetime,
        until: datetime,
        limit: int,
        down: frozenset[str] = frozenset(),
    ) -> list[Deferral]:
        self._check()
        due = [each for each in self.deferrals.values() if each.due_at <= at]
        return self._claim([each for each in due if each.dependency not in down][:limit], until)

    def claim_probe(
        self, service: str, dependency: str, *, at: datetime, until: datetime
    ) -> list[Deferral]:
        self._check()
        due = [each for each in self.deferrals.values() if each.due_at <= at]
        return self._claim([each for each in due if each.dependency == dependency][:1], until)

    def _claim(self, taken: list[Deferral], until: datetime) -> list[Deferral]:
        for each in taken:
            self.deferrals[each.deferral_id] = replace(each, due_at=until)
        return taken

    def postpone_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        self._check()
        for deferral in deferrals:
            if deferral.deferral_id in self.deferrals:
                self.deferrals[deferral.deferral_id] = deferral

    def end_deferrals(self, deferral_ids: Sequence[str]) -> None:
        self._check()
        for deferral_id in deferral_ids:
            self.deferrals.pop(deferral_id, None)

    def backlogs(self) -> list[Backlog]:
        return []

    def add_halts(self, halts: Sequence[Halt]) -> None:
        self._check()
        held = {TopicPartition(halt.topic, halt.partition) for halt in self.open_halts}
        self.open_halts += [h for h in halts if TopicPartition(h.topic, h.partition) not in held]

    def halts(self, service: str | None = None) -> list[Halt]:
        self._check()
        return list(self.open_halts)

    def resume_halts(self, halts: Sequence[Halt], *, by: str, at: datetime) -> list[Halt]:
        ended, self.open_halts = self.open_halts, []
        return ended

    def holds(self, record: Record) -> bool:
        self._check()
        return self.knows(record)

    def unsent_letters(self, service: str, *, before: datetime, limit: int) -> list[DeadLetter]:
        self._check()
        return [letter for letter in self.unsent if letter.died_at < before][:limit]

    def note_sent(self, letter_ids: Sequence[str]) -> None:
        self._check()
        self.unsent = [letter for letter in self.unsent if letter.letter_id not in letter_ids]
