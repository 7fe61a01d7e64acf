"""A Linux boot image in miniature: the setup header and the PE headers of a bzImage around a pattern. Deterministic."""

from __future__ import annotations

import struct

PE_AT = 0x40
HEADERS = 0x1000


def kernel(
    *, protocol: int = 0x20F, xloadflags: int = 0x40, initrd_max: int = 0x7FFFFFFF, trailing: bytes = b""
) -> bytes:
    """Two sections of 0x600 and 0xA00 bytes behind headers of 0x1000 bytes."""
    image = bytearray(HEADERS)
    image[:2], image[0x3C:0x40] = b"MZ", struct.pack("<I", PE_AT)
    struct.pack_into("<4sHHIIIHH", image, PE_AT, b"PE\0\0", 0x8664, 2, 0, 0, 0, 160 + 24, 0x206)
    optional = PE_AT + 24
    struct.pack_into("<HBBIIIIIQII", image, optional, 0x20B, 2, 20, 0xA00, 0x600, 0, 0x1000, 0x1000, 0, 0x1000, 0x200)
    struct.pack_into("<HHHHHHIIIIHH", image, optional + 40, 0, 0, 0, 0, 0, 0, 0, 0x3000, HEADERS, 0xDEADBEEF, 10, 0)
    struct.pack_into("<I", image, optional + 108, 6)
    table = optional + 184
    sections = ((b".setup", 0x600, 0x1000, 0x600, HEADERS), (b".text", 0xA00, 0x2000, 0xA00, HEADERS + 0x600))
    for index, (name, virtual, address, size, start) in enumerate(sections):
        struct.pack_into("<8sIIII", image, table + 40 * index, name, virtual, address, size, start)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    image[0x211] = 0x01
    struct.pack_into("<I", image, 0x22C, initrd_max)
    struct.pack_into("<H", image, 0x236, xloadflags)
    body = bytes((index * 31 + 5) & 0xFF for index in range(0x1000))
    return bytes(image) + body + trailing
