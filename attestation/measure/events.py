"""Runtime measurement registers as lists of named events. A register is what its events extend it to, from zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha384

REGISTER_BYTES = 48


@dataclass(frozen=True, slots=True)
class Event:
    """`digest`: 48 bytes, what the register is extended by."""

    name: str
    digest: bytes


def event(name: str, data: bytes) -> Event:
    """An event that measures these bytes."""
    return Event(name, sha384(data).digest())


def replay(events: Iterable[Event]) -> bytes:
    """48 bytes: RTMR := SHA-384(RTMR | digest), once per event (TDG.MR.RTMR.EXTEND)."""
    register = bytes(REGISTER_BYTES)
    for each in events:
        register = sha384(register + each.digest).digest()
    return register
