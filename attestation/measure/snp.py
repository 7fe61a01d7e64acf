"""The SEV-SNP launch measurement: a chain of SHA-384 over the pages that the hypervisor puts into the guest.

Sources: AMD SEV Secure Nested Paging Firmware ABI 1.55, 8.17.2 (PAGE_INFO); AMD64 APM volume 2, table B-4 (VMSA); QEMU
target/i386/sev.c (table of kernel hashes), for QEMU and KVM.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256, sha384
from uuid import UUID

from attestation.measure.firmware import (
    FOUR_GIB,
    PAGE_BYTES,
    SEV_ES_RESET,
    SEV_HASH_TABLE,
    footer_table,
    sev_sections,
)
from attestation.strict import Malformed

MAX_VCPUS = 4096
_VMSA_ADDRESS = 0xFFFFFFFFF000
"""A VMSA is measured as if it lay at the highest page."""
_RESET = 0xFFFFFFF0
_SNP_ACTIVE = 1
_HASHES = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_COMMAND_LINE = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL = UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le


class _Page(IntEnum):
    NORMAL = 1
    VMSA = 2
    ZERO = 3
    SECRETS = 5
    CPUID = 6


class _Section(IntEnum):
    """Types in OVMF's SEV metadata."""

    MEMORY = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CALLING_AREA = 4
    KERNEL_HASHES = 0x10


# Family, model and stepping of QEMU's CPU models: what RDX holds at reset.
VCPU_TYPES = {
    "EPYC": (23, 1, 2),
    "EPYC-Rome": (23, 49, 0),
    "EPYC-Milan": (25, 1, 1),
    "EPYC-Genoa": (25, 17, 0),
    "EPYC-Turin": (26, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Boot:
    """What is booted directly. An absent initrd is an empty one."""

    kernel: bytes
    initrd: bytes
    command_line: str


def vcpu_signature(family: int, model: int, stepping: int) -> int:
    """CPUID leaf 1, EAX (AMD64 APM volume 3, appendix E)."""
    base, extended = (family, 0) if family <= 15 else (15, family - 15)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | stepping


def launch_digest(
    firmware: bytes, vcpus: int, signature: int, boot: Boot | None = None, *, guest_features: int = _SNP_ACTIVE
) -> bytes:
    """48 bytes, MEASUREMENT of the report. Raises Malformed."""
    if not 1 <= vcpus <= MAX_VCPUS:
        raise Malformed(f"vcpus: {vcpus}, expected 1 to {MAX_VCPUS}")
    if len(firmware) % PAGE_BYTES:
        raise Malformed("firmware: it is not made of whole pages; give the file that QEMU gets with -bios")
    chain = _Chain()
    chain.normal(FOUR_GIB - len(firmware), firmware)
    hashes = None
    if boot is not None:
        hashes = _hashes_page(firmware, boot)
    placed = _metadata(chain, firmware, hashes)
    if hashes is not None and not placed:
        raise Malformed("firmware: it reserves no page for the kernel's hashes; use OVMF's AmdSev build")
    ap_start = _ap_start(firmware) if vcpus > 1 else _RESET
    for index in range(vcpus):
        chain.add(
            _Page.VMSA, _VMSA_ADDRESS, sha384(_vmsa(_RESET if index == 0 else ap_start, signature, guest_features))
        )
    return chain.digest


class _Chain:
    def __init__(self) -> None:
        self.digest = bytes(48)

    def add(self, page: _Page, address: int, content: object = None) -> None:
        found = bytes(48) if content is None else content.digest()  # type: ignore[attr-defined]
        self.digest = sha384(
            self.digest + found + struct.pack("<HBBBBBBQ", 0x70, page, 0, 0, 0, 0, 0, address)
        ).digest()

    def normal(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), PAGE_BYTES):
            self.add(_Page.NORMAL, address + at, sha384(data[at : at + PAGE_BYTES]))


def _metadata(chain: _Chain, firmware: bytes, hashes: bytes | None) -> bool:
    """Whether the page of hashes found its place."""
    placed = False
    for section in sev_sections(firmware):
        pages = range(section.address, section.address + section.memory_bytes, PAGE_BYTES)
        match section.kind:
            case _Section.MEMORY | _Section.SVSM_CALLING_AREA:
                for page in pages:
                    chain.add(_Page.ZERO, page)
            case _Section.SECRETS:
                chain.add(_Page.SECRETS, section.address)
            case _Section.CPUID:
                chain.add(_Page.CPUID, section.address)
            case _Section.KERNEL_HASHES if hashes is not None:
                chain.normal(section.address, hashes)
                placed = True
            case _Section.KERNEL_HASHES:
                for page in pages:
                    chain.add(_Page.ZERO, page)
            case unknown:
                raise Malformed(f"firmware: SEV section of unknown type {unknown:#x}")
    return placed


def _hashes_page(firmware: bytes, boot: Boot) -> bytes:
    place = footer_table(firmware).get(SEV_HASH_TABLE)
    if place is None or len(place) < 4:
        raise Malformed("firmware: it does not check the kernel's hashes; use OVMF's AmdSev build")
    offset = int.from_bytes(place[:4], "little") % PAGE_BYTES
    entries = (
        (_COMMAND_LINE, boot.command_line.encode() + b"\0"),
        (_INITRD, boot.initrd),
        (_KERNEL, boot.kernel),
    )
    body = b"".join(guid + struct.pack("<H", 50) + sha256(data).digest() for guid, data in entries)
    table = _HASHES + struct.pack("<H", 18 + len(body)) + body
    table += bytes(-len(table) % 16)
    if offset + len(table) > PAGE_BYTES:
        raise Malformed("firmware: its table of hashes does not fit into one page")
    return (bytes(offset) + table).ljust(PAGE_BYTES, b"\0")


def _ap_start(firmware: bytes) -> int:
    found = footer_table(firmware).get(SEV_ES_RESET)
    if found is None or len(found) < 4:
        raise Malformed("firmware: it names no start of further processors; use an OVMF built for SEV-ES")
    return int.from_bytes(found[:4], "little")


# Offset and value of what is not zero in the initial VMSA; a segment is selector, attributes, limit, base.
def _vmsa(start: int, signature: int, guest_features: int) -> bytes:
    page = bytearray(PAGE_BYTES)
    data, code = (0, 0x93, 0xFFFF, 0), (0xF000, 0x9B, 0xFFFF, start & 0xFFFF0000)
    table = (0, 0, 0xFFFF, 0)
    segments = (data, code, data, data, data, data, table, (0, 0x82, 0xFFFF, 0), table, (0, 0x8B, 0xFFFF, 0))
    for index, segment in enumerate(segments):
        struct.pack_into("<HHIQ", page, 16 * index, *segment)
    words = {
        0x0D0: 0x1000,  # EFER.SVME, which KVM sets
        0x148: 0x40,  # CR4.MCE, which KVM sets
        0x158: 0x10,  # CR0
        0x160: 0x400,  # DR7
        0x168: 0xFFFF0FF0,  # DR6
        0x170: 0x2,  # RFLAGS
        0x178: start & 0xFFFF,  # RIP
        0x268: 0x0007040600070406,  # PAT
        0x310: signature,  # RDX
        0x3B0: guest_features,  # SEV_FEATURES
        0x3E8: 0x1,  # XCR0
        0x408: 0x1F80,  # MXCSR
        0x410: 0x37F,  # x87 control word
    }
    for offset, value in words.items():
        struct.pack_into("<Q", page, offset, value)
    return bytes(page)
