"""A small OVMF-shaped file: the tables are real in form, the code is a pattern. Deterministic."""

from __future__ import annotations

import struct
from uuid import UUID

PAGE = 4096
FOUR_GIB = 1 << 32
TDX_SECTIONS = (
    # data offset, data bytes, address, memory bytes, type, attributes: BFV, CFV, TEMP_MEM, TD_HOB, PERM_MEM (augmented)
    (2 * PAGE, 6 * PAGE, FOUR_GIB - 6 * PAGE, 6 * PAGE, 0, 1),
    (0, 2 * PAGE, FOUR_GIB - 8 * PAGE, 2 * PAGE, 1, 0),
    (0, 0, 0x810000, 0x10000, 3, 0),
    (0, 0, 0x809000, 0x2000, 2, 0),
    (0, 0, 0x800000, 0x6000, 3, 0),
    (0, 0, 0x1000000, 0x4000, 4, 2),
)
SEV_SECTIONS = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x810000, 0x1000, 0x10),
    (0x811000, 0x2000, 1),
)


def _guid(text: str) -> bytes:
    return UUID(text).bytes_le


def firmware(
    *, tdx: tuple[tuple[int, ...], ...] = TDX_SECTIONS, sev: tuple[tuple[int, ...], ...] = SEV_SECTIONS
) -> bytes:
    """Eight pages: two of configuration, six of code with the tables at the end."""
    image = bytearray((index * 7 + index // 256) & 0xFF for index in range(8 * PAGE))
    size = len(image)
    tdvf = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(tdx), 1, len(tdx))
    tdvf += b"".join(struct.pack("<IIQQII", *section) for section in tdx)
    asev = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sev), 1, len(sev))
    asev += b"".join(struct.pack("<III", *section) for section in sev)
    tdvf_at, asev_at = size - 1024, size - 1536
    image[tdvf_at : tdvf_at + len(tdvf)] = tdvf
    image[asev_at : asev_at + len(asev)] = asev
    entries = (
        ("e47a6535-984a-4798-865e-4685a7bf8ec2", struct.pack("<I", size - tdvf_at)),
        ("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", size - asev_at)),
        ("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x810C00, 0x400)),
        ("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004)),
    )
    table = b"".join(data + struct.pack("<H", 18 + len(data)) + _guid(guid) for guid, data in entries)
    table += struct.pack("<H", len(table) + 18) + _guid("96b582de-1fb2-45f7-baea-a366c55a082d")
    image[size - 32 - len(table) : size - 32] = table
    return bytes(image)
