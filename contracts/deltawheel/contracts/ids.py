"""Content ids: an id says what a thing is, not what it happened to contain.

Ids are hashes over an explicit list of fields, so that two processes that never met give the
same thing the same name and "first writer wins" needs nothing but a unique key.
`tests/contracts/golden_ids.json` pins twenty of them: changing one is a breaking release.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from pydantic import BaseModel

__all__ = ["canonical_json", "content_id", "digest_of", "seed_of"]

Canonical: TypeAlias = "bool | int | str | list[Canonical] | dict[str, Canonical] | None"


def _canonical(value: object) -> Canonical:
    match value:
        case None | bool() | int():
            return value
        case str():
            return unicodedata.normalize("NFC", value)
        case Decimal():
            if not value.is_finite():
                raise TypeError(
                    f"an id cannot hang on {value}: only finite decimals have a canonical text"
                )
            return format(value.normalize(), "f") if value else "0"
        case BaseModel():
            return _canonical({name: getattr(value, name) for name in type(value).model_fields})
        case Mapping():
            return {str(_canonical(str(key))): _canonical(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [_canonical(item) for item in value]
        case _:
            raise TypeError(
                f"an id cannot hang on a {type(value).__name__}: use text, integers, decimals, "
                "lists or mappings (floats have no canonical text)"
            )


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of `value`: NFC strings, sorted keys, no spaces, UTF-8.

    Raises:
        TypeError: `value` holds a float, bytes or anything else without a canonical text.
    """
    return json.dumps(
        _canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def content_id(kind: str, version: int, *fields: object) -> str:
    """Return `<kind>_<32 hex digits>`: 128 bits of SHA-256 over the canonical JSON of the fields.

    `version` is part of the hash: when the list of fields changes, it grows, and old ids stay
    what they were.

    Raises:
        TypeError: a field has no canonical text.
    """
    return f"{kind}_{hashlib.sha256(canonical_json([kind, version, *fields])).hexdigest()[:32]}"


def digest_of(content: bytes | str) -> str:
    """Return `sha256:<64 hex digits>` of the content: tells whether two texts differ."""
    raw = content.encode() if isinstance(content, str) else content
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def seed_of(identifier: str) -> int:
    """Return the 31-bit seed that belongs to an id, so that a repeated request repeats its answer.

    31 bits, because some OpenAI-compatible servers read `seed` as a signed 32-bit integer.
    """
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:4]) & 0x7FFFFFFF
