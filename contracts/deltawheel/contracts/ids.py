"""Content ids: an id says what a thing is, not what it happened to contain.

Ids are hashes over an explicit list of fields, so that two processes that never met give the
same thing the same name and "first writer wins" needs nothing but a unique key. The list is
written out wherever an id is made, and a whole record is refused: a field that a later version
adds must not change an id. `tests/contracts/golden_ids.json` pins them: changing one is a breaking
release.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeAlias

__all__ = [
    "MAX_DECIMAL_PLACES",
    "canonical_json",
    "content_id",
    "decimal_text",
    "digest_of",
    "seed_of",
]

Canonical: TypeAlias = "bool | int | str | list[Canonical] | dict[str, Canonical] | None"

MAX_DECIMAL_PLACES = 400
"""Digits that a decimal may have on either side of its point: what the smallest float needs.

Without a bound, the ten characters `1e-999999999` would be written out as a gigabyte.
"""


def decimal_text(value: Decimal) -> str:
    """Return the one text of a decimal: no exponent, no zeros at its end, exact.

    Raises:
        TypeError: it is not finite, or longer than `MAX_DECIMAL_PLACES` on a side of its point.
    """
    if not value.is_finite():
        raise TypeError(f"an id cannot hang on {value}: only finite decimals have a canonical text")
    return _written_out(value)


@lru_cache(maxsize=1_024)
def _written_out(value: Decimal) -> str:
    if not value:
        return "0"
    _, digits, exponent = value.as_tuple()
    places, whole = -int(exponent), len(digits) + int(exponent)
    if max(places, whole) > MAX_DECIMAL_PLACES:
        raise TypeError(
            f"an id cannot hang on a decimal with {max(places, whole)} digits on one side of its "
            f"point: give at most {MAX_DECIMAL_PLACES}"
        )
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _canonical(value: object) -> Canonical:
    match value:
        case None | bool() | int():
            return value
        case str():
            return value if value.isascii() else unicodedata.normalize("NFC", value)
        case Decimal():
            return decimal_text(value)
        case Mapping():
            return {str(_canonical(str(key))): _canonical(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [_canonical(item) for item in value]
        case _:
            raise TypeError(
                f"an id cannot hang on a {type(value).__name__}: use text, integers, decimals, "
                "lists or mappings (floats have no canonical text, records no fixed fields)"
            )


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of `value`: NFC strings, sorted keys, no spaces, UTF-8.

    Raises:
        TypeError: `value` holds a float, bytes, a record or anything else without a canonical
            text, or a decimal that is too long to write out.
    """
    return _ENCODER.encode(_canonical(value)).encode()


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
