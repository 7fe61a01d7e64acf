"""A guest's event log (CCEL): replayed, and compared with what was computed.

Sources: TCG PC Client Platform Firmware Profile, section 10 (TCG_PCR_EVENT2), UEFI Specification 2.10, section 38.4.1
(index of a measurement register), ACPI 6.5 CCEL. A log is the guest's word: it means something only once its replay is
what a verified quote holds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha384
from itertools import zip_longest

from attestation.measure.events import REGISTER_BYTES, Event, replay
from attestation.measure.tdx import REGISTERS
from attestation.strict import Malformed

LIMIT_BYTES = 4 * 1024 * 1024
_MAX_EVENTS, _MAX_EVENT_BYTES = 4096, 1024 * 1024
_NO_ACTION, _SEPARATOR, _ACTION, _VARIABLE, _VARIABLE_BOOT = 3, 4, 0x80000007, 0x80000001, 0x80000002
_TYPES = {
    _NO_ACTION: "no action",
    _SEPARATOR: "separator",
    0x5: "action",
    0x6: "event tag",
    0xA: "platform configuration",
    0xD: "IPL",
    _VARIABLE: "variable",
    _VARIABLE_BOOT: "variable",
    0x80000003: "boot services application",
    0x80000006: "partition table",
    _ACTION: "EFI action",
    0x80000008: "firmware blob",
    0x80000009: "hand-off tables",
    0x8000000A: "firmware blob",
    0x8000000B: "hand-off tables",
    0x8000000C: "variable",
    0x800000E0: "variable authority",
}
_SHA384, _SIZES = 0x000C, {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64}
_COVERED = (_SEPARATOR, _ACTION, _VARIABLE)
"""Types whose digest is that of the event's own bytes."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry: register 0..3, the event, and whether its text is what was measured (None: cannot be told)."""

    register: int
    event: Event
    covered: bool | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a register's list first parts from the log. None: that side has ended."""

    register: str
    index: int
    computed: Event | None
    logged: Event | None

    def __str__(self) -> str:
        where = f"{self.register}, event {self.index}"
        if self.logged is None and self.computed is not None:
            return f"{where}: {self.computed.name} is missing in the log"
        if self.computed is None and self.logged is not None:
            return f"{where}: the log goes on with {self.logged.name}, which was not computed"
        assert self.computed is not None and self.logged is not None
        return f"{where}: {self.computed.name} differs (the log calls it {self.logged.name})"


def parse(log: bytes) -> tuple[Logged, ...]:
    """Entries that extended a register. Raises Malformed."""
    if len(log) > LIMIT_BYTES:
        raise Malformed(f"event log: more than {LIMIT_BYTES} bytes; give /sys/firmware/acpi/tables/data/CCEL")
    try:
        return tuple(_entries(log))
    except struct.error as error:
        raise Malformed("event log: it ends inside an entry; give the whole CCEL data") from error


def by_register(log: tuple[Logged, ...]) -> dict[str, tuple[Event, ...]]:
    return {name: tuple(each.event for each in log if each.register == index) for index, name in enumerate(REGISTERS)}


def differences(computed: Mapping[str, tuple[Event, ...]], log: tuple[Logged, ...]) -> list[Difference]:
    """By register; after an event that one side lacks only that is told, for everything behind it is shifted."""
    logged = by_register(log)
    found = []
    for name in REGISTERS:
        for index, (mine, theirs) in enumerate(zip_longest(computed.get(name, ()), logged[name])):
            if mine is not None and theirs is not None and mine.digest == theirs.digest:
                continue
            found.append(Difference(name, index, mine, theirs))
            if mine is None or theirs is None or len(computed[name]) != len(logged[name]):
                break
    return found


def registers(log: tuple[Logged, ...]) -> dict[str, bytes]:
    """What the log replays to."""
    return {name: replay(events) for name, events in by_register(log).items()}


def _entries(log: bytes) -> list[Logged]:
    at, sizes = _header(log)
    found: list[Logged] = []
    # What the table does not use is all ones or all zeros.
    while log[at : at + 12].strip(b"\xff") and log[at : at + 12].strip(b"\0"):
        index, kind, count = struct.unpack_from("<III", log, at)
        if len(found) >= _MAX_EVENTS or count != len(sizes):
            raise Malformed("event log: an entry has another number of digests than its header says, or it never ends")
        at += 12
        digest = b""
        for _ in range(count):
            (algorithm,) = struct.unpack_from("<H", log, at)
            size = sizes.get(algorithm)
            if size is None:
                raise Malformed(f"event log: an entry has a digest of unknown algorithm {algorithm:#x}")
            if algorithm == _SHA384:
                digest = log[at + 2 : at + 2 + size]
            at += 2 + size
        (size,) = struct.unpack_from("<I", log, at)
        data = log[at + 4 : at + 4 + size]
        if size > _MAX_EVENT_BYTES or len(data) != size or len(digest) != REGISTER_BYTES:
            raise Malformed("event log: an entry is cut off, or has no SHA-384 digest")
        at += 4 + size
        if kind == _NO_ACTION:
            continue
        if not 1 <= index <= len(REGISTERS):
            raise Malformed(f"event log: measurement register {index}; TDX has 1 to 4")
        covered = sha384(data).digest() == digest if kind in _COVERED else None
        found.append(Logged(index - 1, Event(_name(kind, data), digest), covered))
    return found


def _header(log: bytes) -> tuple[int, dict[int, int]]:
    """Where entries begin, and the digests of each: algorithm -> size."""
    _, kind, _, size = struct.unpack_from("<II20sI", log)
    if kind != _NO_ACTION or log[32:48] != b"Spec ID Event03\0":
        raise Malformed("event log: no TCG log in the crypto-agile format; give /sys/firmware/acpi/tables/data/CCEL")
    (count,) = struct.unpack_from("<I", log, 56)
    if not 0 < count <= len(_SIZES):
        raise Malformed("event log: its header lists an impossible number of algorithms")
    sizes = {}
    for index in range(count):
        algorithm, length = struct.unpack_from("<HH", log, 60 + 4 * index)
        if _SIZES.get(algorithm) != length:
            raise Malformed(f"event log: its header gives algorithm {algorithm:#x} {length} bytes")
        sizes[algorithm] = length
    return 32 + size, sizes


def _name(kind: int, data: bytes) -> str:
    """What the entry says of itself, made printable."""
    name = _TYPES.get(kind, f"type {kind:#x}")
    detail = ""
    if kind in (_VARIABLE, _VARIABLE_BOOT, 0x8000000C) and len(data) >= 32:
        characters = min(int.from_bytes(data[16:24], "little"), 64)
        detail = data[32 : 32 + 2 * characters].decode("utf-16-le", "replace")
    elif kind in (0x5, _ACTION, 0xA, 0xD):
        detail = data[:80].split(b"\0")[0].decode("ascii", "replace")
    detail = "".join(char for char in detail if char.isprintable())
    return f"{name} {detail}" if detail else name
