"""Hashes and names as people type them."""

from __future__ import annotations

from app.governance.core.settings import NotUnderstood


def digest(text: str, length: int = 32) -> bytes:
    """Raises NotUnderstood unless it is `length` bytes in hex."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != length:
        raise NotUnderstood(f"{text!r} has not {2 * length} hex digits")
    return found
