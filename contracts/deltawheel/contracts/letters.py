"""Dead letters as an operator looks after them: what lies there, and what was done about it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record, UtcTime
from deltawheel.contracts.transition import Transition

__all__ = ["EntryKind", "LetterEntry", "LetterMove", "Letters", "MoveKind", "Replayed"]


class EntryKind(StrEnum):
    """What lies there."""

    RECORD = "record"
    """A record that a service could not process, with its bytes."""

    PROMPT = "prompt"
    """A prompt that ended dead-lettered without such a record: its models refused it."""


class MoveKind(StrEnum):
    """What an operator did about it."""

    REPLAYED = "replayed"
    DROPPED = "dropped"


class LetterMove(Record):
    """Who replayed or dropped a dead letter, why and when. The letter itself stays."""

    letter_id: str
    kind: MoveKind
    by: str
    reason: str
    moved_at: UtcTime


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterEntry:
    """A dead letter without its bytes, or a dead-lettered prompt.

    Of a prompt, `error`, `service` and `topic` are empty, and `died_at` is when its attempt closed.
    `domain` is known of prompts that the store holds.
    """

    kind: EntryKind
    entry_id: str
    attempt: int
    reason: str
    died_at: datetime
    service: str | None = None
    topic: str | None = None
    error: str | None = None
    num_bytes: int = 0
    prompt_key: PromptKey | None = None
    domain: str | None = None
    move: LetterMove | None = None

    @property
    def move_id(self) -> str:
        """Under which a move of it is stored; a prompt can come to lie here once per attempt."""
        if self.kind is EntryKind.PROMPT:
            return f"{self.entry_id}:{self.attempt}"
        return self.entry_id

    @property
    def held_key(self) -> PromptKey | None:
        """The prompt that is to be tried again, if the store holds one."""
        return self.prompt_key if self.domain is not None else None

    def moved(self, kind: MoveKind, *, by: str, reason: str, at: datetime) -> LetterMove:
        """Return the note that somebody has done this about it."""
        return LetterMove(letter_id=self.move_id, kind=kind, by=by, reason=reason, moved_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay of prompts has changed: nothing, where somebody was there before."""

    moved: frozenset[str]
    opened: Mapping[PromptKey, Transition]


class Letters(Protocol):
    """Dead letters: the newest first, each moved once, by the first who does."""

    def letter_entries(
        self, *, after: LetterEntry | None = None, with_moved: bool = False
    ) -> Generator[LetterEntry, None, None]:
        """Yield what nobody has moved, or everything; `after` is the last of the page before.

        A prompt is left out while a letter of its own lies there, or was dropped. It holds a
        connection until it is read to its end or closed.
        """
        ...

    def find_entries(self, entry_ids: Sequence[str]) -> dict[str, LetterEntry]:
        """Return these, moved or not; those that do not exist are absent."""
        ...

    def letters_by_id(self, letter_ids: Sequence[str]) -> dict[str, DeadLetter]:
        """Return these letters with their bytes."""
        ...

    def next_attempts(self, keys: Sequence[PromptKey]) -> dict[PromptKey, int]:
        """Return which attempt a replay would open at each prompt that leaves something to do."""
        ...

    def replay_prompts(
        self,
        entries: Sequence[LetterEntry],
        *,
        by: str,
        reason: str,
        at: datetime,
        expires_at: datetime,
    ) -> Replayed:
        """Move entries and open the next attempt of their prompts, in one transaction.

        Opens as `Ledger.open_attempts` does, and moves all letters of a prompt whose attempt was
        opened, for all its failures are tried again. Of an entry that is moved already nothing
        comes.
        """
        ...

    def move_letters(self, moves: Sequence[LetterMove]) -> set[str]:
        """Store moves; return the ids of those that are new."""
        ...
