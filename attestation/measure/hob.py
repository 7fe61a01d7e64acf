"""The TD hand-off block: the list of memory ranges that QEMU writes for the firmware, which measures it first.

Sources: QEMU hw/i386/tdvf-hob.c and target/i386/kvm/tdx.c (memory split), UEFI Platform Initialization Specification,
volume 3 (HOB layouts).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from attestation.measure.firmware import FOUR_GIB, PAGE_BYTES, Kind, Section
from attestation.strict import Malformed

_HANDOFF, _RESOURCE = 1, 3
_SYSTEM_MEMORY, _UNACCEPTED = 0, 7
_PRESENT_INITIALIZED_TESTED = 7
_HANDOFF_BYTES, _RESOURCE_BYTES, _END_BYTES = 56, 48, 8
Q35_SPLIT = 0xB000_0000
"""From this much memory on, machine type q35 keeps only 2 GiB below 4 GiB."""
_Q35_LOW = 0x8000_0000


def below_four_gib(memory_bytes: int) -> int:
    """How much of the guest's memory QEMU's q35 puts below 4 GiB."""
    return _Q35_LOW if memory_bytes >= Q35_SPLIT else memory_bytes


def hand_off_block(sections: Sequence[Section], memory_bytes: int) -> bytes:
    """The bytes that are measured. Raises Malformed when the firmware has no place for them, or too little memory."""
    place = next((section.address for section in sections if section.kind is Kind.TD_HOB), None)
    if place is None:
        raise Malformed("firmware: it has no TD_HOB section, so it takes no list of memory")
    low = below_four_gib(memory_bytes)
    prepared = sorted(
        (section.address, section.address + section.memory_bytes)
        for section in sections
        if section.kind in (Kind.TD_HOB, Kind.TEMP_MEM)
    )
    if memory_bytes % PAGE_BYTES or prepared[-1][1] > low:
        raise Malformed(f"memory: {memory_bytes} bytes are not whole pages, or less than the firmware itself needs")
    resources = list(_ranges(prepared, low))
    if memory_bytes > low:
        resources.append((_UNACCEPTED, FOUR_GIB, FOUR_GIB + memory_bytes - low))
    body = b"".join(_resource(kind, start, end) for kind, start, end in resources)
    end_of_list = place + _HANDOFF_BYTES + len(body) + _END_BYTES
    head = struct.pack("<HHIII5Q", _HANDOFF, _HANDOFF_BYTES, 0, 9, 0, 0, 0, 0, 0, end_of_list)
    # The end marker is written but lies outside of what the firmware measures.
    return head + body


def _ranges(prepared: Iterable[tuple[int, int]], low: int) -> Iterable[tuple[int, int, int]]:
    at = 0
    for start, end in prepared:
        if start < at:
            raise Malformed("firmware: its TDX sections overlap")
        if start > at:
            yield _UNACCEPTED, at, start
        yield _SYSTEM_MEMORY, start, end
        at = end
    if at < low:
        yield _UNACCEPTED, at, low


def _resource(kind: int, start: int, end: int) -> bytes:
    owner = bytes(16)
    return struct.pack(
        "<HHI16sIIQQ", _RESOURCE, _RESOURCE_BYTES, 0, owner, kind, _PRESENT_INITIALIZED_TESTED, start, end - start
    )
