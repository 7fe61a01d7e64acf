"""The tables that OVMF keeps at its end: where the hypervisor finds what to load, and how it measures that.

Sources: edk2 OvmfPkg/ResetVector (table of GUIDs), Intel TDX Virtual Firmware Design Guide, section 11 (TDVF
descriptor), OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from uuid import UUID

from attestation.strict import Malformed

PAGE_BYTES = 0x1000
LIMIT_BYTES = 64 * 1024 * 1024
FOUR_GIB = 1 << 32
_MAX_SECTIONS = 64
_MAX_MEMORY_BYTES = 1 << 30
"""More than any firmware has built in; the bound keeps a hostile file from costing hours of hashing."""

_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_AFTER_FOOTER_BYTES = 32
TDX_METADATA = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
SEV_HASH_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
SEV_ES_RESET = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le


class Kind(IntEnum):
    """Type of a TDVF section."""

    BFV = 0
    CFV = 1
    TD_HOB = 2
    TEMP_MEM = 3
    PERM_MEM = 4
    PAYLOAD = 5
    PAYLOAD_PARAM = 6


class Attribute(IntFlag):
    EXTEND = 1
    """The hypervisor extends MRTD with the section's content."""
    AUGMENT = 2
    """Pages are not added at launch but accepted by the guest: nothing of them is measured."""


@dataclass(frozen=True, slots=True)
class Section:
    """A TDVF section. Addresses are guest-physical; offsets are into the file; sizes in bytes."""

    data_offset: int
    data_bytes: int
    address: int
    memory_bytes: int
    kind: Kind
    attributes: Attribute


@dataclass(frozen=True, slots=True)
class SevSection:
    """One entry of OVMF's SEV metadata."""

    address: int
    memory_bytes: int
    kind: int


def footer_table(firmware: bytes) -> dict[bytes, bytes]:
    """Entries of the table before the reset vector, by GUID in its stored form. Raises Malformed."""
    if not _AFTER_FOOTER_BYTES + 18 < len(firmware) <= LIMIT_BYTES:
        raise Malformed(f"firmware: {len(firmware)} bytes, expected an OVMF file of at most {LIMIT_BYTES}")
    end = len(firmware) - _AFTER_FOOTER_BYTES
    if firmware[end - 16 : end] != _FOOTER:
        raise Malformed(
            "firmware: no OVMF table of GUIDs at its end; give OVMF.fd or its CODE part, not VARS or a disk"
        )
    length = int.from_bytes(firmware[end - 18 : end - 16], "little")
    start = end - length
    if length < 18 or start < 0:
        raise Malformed("firmware: its table of GUIDs has an impossible length")
    found: dict[bytes, bytes] = {}
    at = end - 18
    while at - start >= 18:
        guid, size = firmware[at - 16 : at], int.from_bytes(firmware[at - 18 : at - 16], "little")
        if size < 18 or at - size < start:
            raise Malformed("firmware: an entry of its table of GUIDs has an impossible length")
        found.setdefault(guid, firmware[at - size : at - 18])
        at -= size
    return found


def _metadata(firmware: bytes, guid: bytes, signature: bytes, what: str) -> tuple[int, int, int]:
    """Offset of the descriptor, its version and number of entries."""
    entry = footer_table(firmware).get(guid)
    if entry is None or len(entry) < 4:
        raise Malformed(f"firmware: it has no {what}; it was not built for that")
    offset = len(firmware) - int.from_bytes(entry[-4:], "little")
    if not 0 <= offset <= len(firmware) - 16:
        raise Malformed(f"firmware: its {what} lies outside the file")
    found, _, version, count = struct.unpack_from("<4sIII", firmware, offset)
    if found != signature or not 0 < count <= _MAX_SECTIONS:
        raise Malformed(f"firmware: its {what} is damaged")
    return offset + 16, version, count


def tdvf_sections(firmware: bytes) -> tuple[Section, ...]:
    """In the file's order, which is the order of measurement. Raises Malformed."""
    at, version, count = _metadata(firmware, TDX_METADATA, b"TDVF", "TDX metadata")
    if version != 1:
        raise Malformed(f"firmware: TDX metadata of version {version}, this program reads 1")
    if at + 32 * count > len(firmware):
        raise Malformed("firmware: its TDX metadata ends outside the file")
    sections = tuple(_section(firmware, at + 32 * index) for index in range(count))
    if sum(section.memory_bytes for section in sections) > _MAX_MEMORY_BYTES:
        raise Malformed(f"firmware: its TDX sections take more than {_MAX_MEMORY_BYTES} bytes of memory")
    return sections


def _section(firmware: bytes, at: int) -> Section:
    offset, size, address, memory, kind, attributes = struct.unpack_from("<IIQQII", firmware, at)
    if kind not in list(Kind) or attributes & ~3:
        raise Malformed(f"firmware: TDX section of unknown type {kind} or attributes {attributes:#x}")
    if address % PAGE_BYTES or memory % PAGE_BYTES or size > memory:
        raise Malformed("firmware: a TDX section is not made of whole pages, or is larger than its memory")
    if offset + size > len(firmware):
        raise Malformed("firmware: a TDX section lies outside the file")
    section = Section(offset, size, address, memory, Kind(kind), Attribute(attributes))
    if Attribute.EXTEND in section.attributes and (size != memory or Attribute.AUGMENT in section.attributes):
        # The TDX module extends whole pages: with less data the rest would be whatever the hypervisor put there.
        raise Malformed("firmware: a measured TDX section does not fill its memory")
    return section


def sev_sections(firmware: bytes) -> tuple[SevSection, ...]:
    """In the file's order. Raises Malformed."""
    at, _, count = _metadata(firmware, SEV_METADATA, b"ASEV", "SEV metadata")
    if at + 12 * count > len(firmware):
        raise Malformed("firmware: its SEV metadata ends outside the file")
    found = tuple(SevSection(*struct.unpack_from("<III", firmware, at + 12 * index)) for index in range(count))
    if any(each.address % PAGE_BYTES or each.memory_bytes % PAGE_BYTES for each in found):
        raise Malformed("firmware: a SEV section is not made of whole pages")
    if sum(each.memory_bytes for each in found) > _MAX_MEMORY_BYTES:
        raise Malformed(f"firmware: its SEV sections take more than {_MAX_MEMORY_BYTES} bytes of memory")
    return found
