"""One dead letter as an operator reads it: where it stood, why it died, and what it holds."""

import base64
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.letters import LetterEntry
from deltawheel.contracts.store import Group
from deltawheel.ops.console import field

__all__ = ["LetterView", "PromptView", "View", "entry_json"]

_MAX_CHARS: Final = 4_000
_MAX_BYTES: Final = 256
_SHORT_CHARS: Final = 200


def entry_json(entry: LetterEntry) -> dict[str, Any]:
    """Return what `list` knows, for machines."""
    key = entry.prompt_key
    return {
        "id": entry.entry_id,
        "kind": entry.kind.value,
        "service": entry.service,
        "topic": entry.topic,
        "error": entry.error,
        "reason": entry.reason,
        "attempt": entry.attempt,
        "prompt_id": key.prompt_id if key else None,
        "round": key.round if key else None,
        "domain": entry.domain,
        "num_bytes": entry.num_bytes,
        "died_at": entry.died_at,
        "move": entry.move,
    }


class View(Protocol):
    """What `show` shows."""

    def json(self) -> dict[str, Any]:
        """Return all of it, for machines."""
        ...

    def lines(self) -> Iterator[str]:
        """Yield what a person reads; not yet safe for a terminal."""
        ...


@dataclass(frozen=True, slots=True)
class LetterView:
    """A record with its bytes: in base64, and as text where they are text."""

    entry: LetterEntry
    letter: DeadLetter

    def json(self) -> dict[str, Any]:
        """Return all of it, for machines."""
        letter = self.letter
        return {
            **entry_json(self.entry),
            "partition": letter.partition,
            "offset": letter.offset,
            "key": _bytes_json(letter.key),
            "value": _bytes_json(letter.value),
            "headers": [[name, _bytes_json(raw)] for name, raw in letter.headers],
        }

    def lines(self) -> Iterator[str]:
        """Yield what a person reads; not yet safe for a terminal."""
        letter, entry = self.letter, self.entry
        yield from _head(entry)
        yield field("at", f"{letter.topic}, partition {letter.partition}, offset {letter.offset}")
        yield field("by", f"{letter.service}: {letter.error}")
        if key := letter.prompt_key:
            held = "" if entry.domain is not None else ", which the store does not hold"
            yield field("prompt", f"{key.prompt_id}:{key.round}{held}")
        yield field("key", _shown(letter.key, _SHORT_CHARS))
        for name, raw in letter.headers:
            yield field("header", f"{name}: {_shown(raw, _SHORT_CHARS)}")
        yield field("value", f"{entry.num_bytes} bytes")
        yield _indented(_shown(letter.value, _MAX_CHARS))


@dataclass(frozen=True, slots=True)
class PromptView:
    """A dead-lettered prompt with the reasons of its slots, those of its last attempt."""

    entry: LetterEntry
    group: Group

    def json(self) -> dict[str, Any]:
        """Return all of it, for machines."""
        group = self.group
        failures = [*group.slot_failures, *([group.prompt_failure] if group.prompt_failure else [])]
        return {**entry_json(self.entry), "prompt": group.prompt, "failures": failures}

    def lines(self) -> Iterator[str]:
        """Yield what a person reads; not yet safe for a terminal."""
        yield from _head(self.entry)
        yield field("domain", self.group.prompt.domain)
        for failure in self.group.slot_failures:
            yield field(f"slot {failure.slot}", failure.reason)
        yield "asked"
        yield _indented(_cut(self.group.prompt.messages[-1].content, _MAX_CHARS))


def _bytes_json(raw: bytes | None) -> dict[str, str | None] | None:
    if raw is None:
        return None
    return {"text": _text_of(raw), "base64": base64.b64encode(raw).decode()}


def _head(entry: LetterEntry) -> Iterator[str]:
    yield field("id", entry.entry_id)
    yield field("reason", entry.reason)
    yield field("died", f"{entry.died_at.isoformat()}, in attempt {entry.attempt}")
    if move := entry.move:
        yield field(move.kind.value, f"by {move.by} at {move.moved_at.isoformat()}: {move.reason}")


def _text_of(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _shown(raw: bytes | None, max_chars: int) -> str:
    if raw is None:
        return "none"
    text = _text_of(raw)
    if text is not None:
        return _cut(text, max_chars)
    rest = f" … {len(raw)} bytes" if len(raw) > _MAX_BYTES else ""
    return f"no text: {raw[:_MAX_BYTES].hex(' ')}{rest}"


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]} … {len(text)} characters"


def _indented(text: str) -> str:
    """Set text apart, so that none of its lines passes for one of ours."""
    return textwrap.indent(text, "    ", lambda line: True)
