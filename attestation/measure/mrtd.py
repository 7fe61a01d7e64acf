"""MRTD: the SHA-384 that the TDX module forms while the hypervisor builds the guest's first memory.

Intel TDX Module Base Architecture Specification, "MRTD: Measurement of TD": TDH.MEM.PAGE.ADD hashes 128 bytes with the
page's address, TDH.MR.EXTEND hashes 128 bytes with the address of each 256-byte chunk and then the chunk.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha384

from attestation.measure.firmware import PAGE_BYTES, Attribute, Section, tdvf_sections

CHUNK_BYTES = 256


class Order(StrEnum):
    """In which order a hypervisor issues the two calls. The result differs; the guest's content does not."""

    PAGE_BY_PAGE = "page"
    """Each page is added and extended before the next: Linux since 6.16 (KVM_TDX_INIT_MEM_REGION), QEMU 9 and later."""
    SECTION_BY_SECTION = "section"
    """All pages of a section are added, then all are extended: the patched QEMU 8.2 of Ubuntu 24.04."""


def mrtd(firmware: bytes, order: Order = Order.PAGE_BY_PAGE) -> bytes:
    """48 bytes. Raises Malformed."""
    running = sha384()
    for section in tdvf_sections(firmware):
        pages = range(0, section.memory_bytes, PAGE_BYTES)
        if order is Order.PAGE_BY_PAGE:
            for page in pages:
                running.update(_added(section, page) + _extended(firmware, section, page))
        else:
            for page in pages:
                running.update(_added(section, page))
            for page in pages:
                running.update(_extended(firmware, section, page))
    return running.digest()


def _call(name: bytes, address: int) -> bytes:
    return name.ljust(16, b"\0") + address.to_bytes(8, "little") + bytes(104)


def _added(section: Section, page: int) -> bytes:
    return b"" if Attribute.AUGMENT in section.attributes else _call(b"MEM.PAGE.ADD", section.address + page)


def _extended(firmware: bytes, section: Section, page: int) -> bytes:
    if Attribute.EXTEND not in section.attributes:
        return b""
    start = section.data_offset + page
    return b"".join(
        _call(b"MR.EXTEND", section.address + page + chunk) + firmware[start + chunk : start + chunk + CHUNK_BYTES]
        for chunk in range(0, PAGE_BYTES, CHUNK_BYTES)
    )
