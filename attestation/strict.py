"""Reading documents that strangers wrote: every key known, every size bounded, nothing guessed."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

_MAX_DEPTH = 32
"""Far above any genuine document, and far below where Python's own limit strikes, which hangs on the reader's stack."""


class Malformed(ValueError):
    """A document is not what its format says. The text names the field and what was expected."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers that keep different duplicates would see two different documents under one hash.
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Malformed(f"the key {key!r} appears twice; keep one")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not a JSON number")


def json_object(text: str | bytes, what: str, *, limit_bytes: int) -> dict[str, Any]:
    """Parse one JSON object of at most `limit_bytes`. Raises Malformed."""
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(raw) > limit_bytes:
        raise Malformed(f"{what}: {len(raw)} bytes, more than the limit of {limit_bytes}; it is not genuine")
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except Malformed as error:
        raise Malformed(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what}: not JSON ({error}); ask the sender for it again") from error
    if not isinstance(found, dict):
        raise Malformed(f"{what}: expected a JSON object, got {type(found).__name__}")
    _check_depth(found, what)
    return found


def _check_depth(document: dict[str, Any], what: str) -> None:
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
    if any(isinstance(each, dict | list) for each in level):
        raise Malformed(f"{what}: nested deeper than {_MAX_DEPTH}; it is not genuine")


def only_keys(document: Mapping[str, Any], what: str, *, required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises Malformed unless `document` has all required keys and no unknown one."""
    required = set(required)
    missing = sorted(required - document.keys())
    if missing:
        raise Malformed(f"{what}: missing {', '.join(missing)}")
    unknown = sorted(document.keys() - required - set(optional))
    if unknown:
        raise Malformed(f"{what}: unknown {_named(unknown)}; remove it or correct its spelling")


def _named(keys: list[str]) -> str:
    """A stranger chose these, and errors end up on terminals and in logs: printable, and only so many."""
    shown = ["".join(char if char.isprintable() else "?" for char in key[:64]) for key in keys[:8]]
    return ", ".join(shown) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")


def text_field(document: Mapping[str, Any], key: str, what: str, *, limit: int) -> str:
    value = document[key]
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed(f"{what}: {key} must be a string of at most {limit} characters")
    return value


def integer_field(document: Mapping[str, Any], key: str, what: str, *, low: int, high: int) -> int:
    value = document[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Malformed(f"{what}: {key} must be an integer from {low} to {high}, got {value!r}")
    return value


def boolean_field(document: Mapping[str, Any], key: str, what: str) -> bool:
    value = document[key]
    if not isinstance(value, bool):
        raise Malformed(f"{what}: {key} must be true or false, got {value!r}")
    return value


def hex_field(document: Mapping[str, Any], key: str, what: str, *, length: int | None = None, limit: int = 0) -> bytes:
    """Hex of exactly `length` bytes, or of at most `limit` bytes."""
    value = document[key]
    bound = limit if length is None else length
    try:
        if not isinstance(value, str) or len(value) > 2 * bound or value != value.strip() or " " in value:
            raise ValueError
        found = bytes.fromhex(value)
    except ValueError:
        found = None
    if found is None or (length is not None and len(found) != length):
        size = f"at most {limit}" if length is None else str(length)
        raise Malformed(f"{what}: {key} must be {size} bytes in hex")
    return found


def base64_field(document: Mapping[str, Any], key: str, what: str, *, limit: int) -> bytes:
    """Standard base64 of at most `limit` bytes, canonical: one text per value."""
    value = document[key]
    try:
        if not isinstance(value, str) or len(value) > 4 * (limit // 3 + 1):
            raise ValueError
        found = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        found = None
    if found is None or len(found) > limit or base64.b64encode(found).decode() != value:
        raise Malformed(f"{what}: {key} must be at most {limit} bytes in base64")
    return found
