"""Replaying and dropping dead letters: what succeeded is reused, failures are tried again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import encode, num_wire_bytes
from deltawheel.contracts.letters import LetterEntry, MoveKind
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Group, Store
from deltawheel.contracts.topics import Topic
from deltawheel.ops.outbox import Outbox

__all__ = ["Action", "Mover", "Step", "plan_drop"]

_MAX_ENTRIES: Final = 500
_MAX_BYTES: Final = 16_000_000
"""What one transaction and one batch may hold."""

_SENDER: Final = "operator"


class Action(StrEnum):
    """What is, or would be, done about a dead letter."""

    OPEN = "open-attempt"
    PUBLISH = "publish"
    DROP = "drop"
    NOTHING = "nothing"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was done about one dead letter, or would be."""

    entry_id: str
    action: Action
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """Does what an operator wants with dead letters, in batches, each of them first writer wins.

    A letter of a prompt that the store holds opens the prompt's next attempt. Of any other, the
    original bytes go to the topic they came from, and only then it counts as replayed: a crash in
    between publishes them twice, which is harmless.
    """

    store: Store
    outbox: Outbox
    settings: Settings
    clock: Clock
    by: str
    reason: str
    say: Callable[[str], None] = field(default=lambda text: None)

    def plan(self, entries: Sequence[LetterEntry]) -> Iterator[Step]:
        """Yield what `replay` would do, changing nothing."""
        for part in _batches(entries):
            there = [entry for entry in part if entry.move is None]
            keys = [key for entry in there if (key := entry.held_key)]
            attempts = self.store.next_attempts(keys)
            groups = self.store.groups([key for key in keys if key not in attempts])
            letters = self.store.letters_by_id([e.entry_id for e in there if e.held_key is None])
            for entry in part:
                yield self._planned(entry, attempts, groups, letters)

    def _planned(
        self,
        entry: LetterEntry,
        attempts: dict[PromptKey, int],
        groups: dict[PromptKey, Group],
        letters: dict[str, DeadLetter],
    ) -> Step:
        key = entry.held_key
        if entry.move is not None:
            return _moved_already(entry)
        if key in attempts:
            return _opens(entry, attempts[key])
        if key is not None:
            return _nothing(entry, _state(groups.get(key)))
        letter = letters[entry.entry_id]
        if fault := self._fault(letter):
            return _refuses(entry, fault)
        return _publishes(entry, letter)

    def replay(self, entries: Sequence[LetterEntry]) -> Iterator[Step]:
        """Try again what failed; yield what was done, a batch at a time."""
        for part in self._shown(entries):
            there = [entry for entry in part if entry.move is None]
            yield from map(_moved_already, [entry for entry in part if entry.move is not None])
            if held := [entry for entry in there if entry.held_key is not None]:
                yield from self._open(held)
            if others := [entry for entry in there if entry.held_key is None]:
                yield from self._publish(others)

    def drop(self, entries: Sequence[LetterEntry]) -> Iterator[Step]:
        """Note that nothing is to be done about these; they stay in the store."""
        for part in self._shown(entries):
            at = self.clock.now()
            moves = [
                entry.moved(MoveKind.DROPPED, by=self.by, reason=self.reason, at=at)
                for entry in part
                if entry.move is None
            ]
            new = self.store.move_letters(moves)
            for entry in part:
                is_new = entry.move_id in new
                yield _drops(entry) if is_new else _moved_already(entry)

    def _open(self, entries: Sequence[LetterEntry]) -> Iterator[Step]:
        now = self.clock.now()
        done = self.store.replay_prompts(
            entries,
            by=self.by,
            reason=self.reason,
            at=now,
            expires_at=now + timedelta(seconds=self.settings.generation.expire_after_s),
        )
        moved = [entry for entry in entries if entry.move_id in done.moved]
        groups = self.store.groups([key for entry in moved if (key := entry.held_key)])
        self._send_owed(list(groups.values()))
        for entry in entries:
            transition = done.opened.get(entry.held_key) if entry.held_key else None
            if entry.move_id not in done.moved:
                yield _moved_already(entry)
            elif transition is not None:
                yield _opens(entry, transition.attempt)
            else:
                yield _nothing(entry, _state(groups.get(entry.held_key or _NOBODY)))

    def _send_owed(self, groups: Sequence[Group]) -> None:
        """Publish at once what curation would publish at one of its next ticks."""
        wheel = self.settings.wheel
        self.outbox.publish(
            [
                encode(event, wheel=wheel, service=_SENDER)
                for group in groups
                for event in group.owed
            ]
        )

    def _publish(self, entries: Sequence[LetterEntry]) -> Iterator[Step]:
        letters = self.store.letters_by_id([entry.entry_id for entry in entries])
        faults = {letter_id: self._fault(letter) for letter_id, letter in letters.items()}
        good = [entry for entry in entries if not faults[entry.entry_id]]
        # Each service that refused a record has a letter of it; the record is published once.
        messages = dict.fromkeys(letters[entry.entry_id].original_message() for entry in good)
        if self.outbox.publish(list(messages)):
            at = self.clock.now()
            moves = [
                entry.moved(MoveKind.REPLAYED, by=self.by, reason=self.reason, at=at)
                for entry in good
            ]
            self.store.move_letters(moves)
        for entry in entries:
            if fault := faults[entry.entry_id] or self._away():
                yield _refuses(entry, fault)
            else:
                yield _publishes(entry, letters[entry.entry_id])

    def _away(self) -> str | None:
        return f"not published: {self.outbox.fault}" if self.outbox.fault else None

    def _fault(self, letter: DeadLetter) -> str | None:
        """Say why a letter's bytes cannot be published, if they cannot."""
        wheel, limit = self.settings.wheel, self.settings.broker.max_message_bytes
        topics = {topic.of(wheel) for topic in Topic if topic is not Topic.DEAD_LETTERS}
        if letter.topic not in topics:
            return f"the wheel {wheel} reads no topic {letter.topic}: drop it"
        if not letter.has_bytes:
            return "it has neither key nor value, which no broker takes: drop it"
        if (size := num_wire_bytes(letter.original_message())) > limit:
            return (
                f"its {size} bytes are above broker.max_message_bytes ({limit}): raise that, here "
                "and on the broker, then replay it"
            )
        return None

    def _shown(self, entries: Sequence[LetterEntry]) -> Iterator[Sequence[LetterEntry]]:
        """Yield batches, telling from time to time how far it is."""
        num_done, next_s = 0, self.clock.monotonic() + 1
        for part in _batches(entries):
            yield part
            num_done += len(part)
            if (now_s := self.clock.monotonic()) >= next_s:
                self.say(f"{num_done} of {len(entries)}")
                next_s = now_s + 1


def plan_drop(entries: Sequence[LetterEntry]) -> Iterator[Step]:
    """Yield what `Mover.drop` would do, changing nothing."""
    return (_moved_already(entry) if entry.move else _drops(entry) for entry in entries)


_NOBODY: Final = PromptKey("", 0)


def _batches(entries: Sequence[LetterEntry]) -> Iterator[Sequence[LetterEntry]]:
    part: list[LetterEntry] = []
    num_bytes = 0
    for entry in entries:
        if part and (len(part) == _MAX_ENTRIES or num_bytes + entry.num_bytes > _MAX_BYTES):
            yield part
            part, num_bytes = [], 0
        part.append(entry)
        num_bytes += entry.num_bytes
    if part:
        yield part


def _state(group: Group | None) -> str:
    if group is None:
        return "its prompt is gone"
    if group.closing is not None:
        return f"its prompt is {group.closing.outcome.value}"
    return f"its prompt is under way, in attempt {group.attempt}"


def _step(entry: LetterEntry, action: Action, detail: str) -> Step:
    return Step(entry_id=entry.entry_id, action=action, detail=detail)


def _opens(entry: LetterEntry, attempt: int) -> Step:
    key = entry.prompt_key
    assert key is not None, "only prompts are opened"
    return _step(entry, Action.OPEN, f"attempt {attempt} of {key.prompt_id}:{key.round}")


def _publishes(entry: LetterEntry, letter: DeadLetter) -> Step:
    return _step(entry, Action.PUBLISH, f"to {letter.topic}, as attempt {letter.attempt + 1}")


def _drops(entry: LetterEntry) -> Step:
    return _step(entry, Action.DROP, entry.reason)


def _nothing(entry: LetterEntry, why: str) -> Step:
    return _step(entry, Action.NOTHING, why)


def _refuses(entry: LetterEntry, why: str) -> Step:
    return _step(entry, Action.REFUSE, why)


def _moved_already(entry: LetterEntry) -> Step:
    move = entry.move
    if move is None:
        return _nothing(entry, "somebody else was quicker")
    return _nothing(entry, f"{move.kind.value} by {move.by} at {move.moved_at:%Y-%m-%d %H:%M:%S}")
