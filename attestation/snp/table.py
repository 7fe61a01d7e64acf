"""The certificates that a host puts beside a report (GHCB specification 56421, SNP Extended Guest Request).

A table of (GUID, offset, length) rows that ends with a row of zeros. The host wrote it and may have written anything:
what is read here is a hint where to find certificates, and each still has to verify.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from attestation.strict import Malformed

TABLE_LIMIT_BYTES = 64 * 1024
_ROW = struct.Struct("<16sII")
_ROWS_LIMIT = 32
_NAMES = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes: "vcek",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes: "vlek",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes: "ask",
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes: "ark",
    UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes: "crl",
}


@dataclass(frozen=True, slots=True)
class CertificateTable:
    """DER as the host gave it; None where it gave none. `ask` is the ASVK where a VLEK is used."""

    vcek: bytes | None = None
    vlek: bytes | None = None
    ask: bytes | None = None
    ark: bytes | None = None
    crl: bytes | None = None


def parse_table(raw: bytes) -> CertificateTable:
    """Rows with an unknown GUID are passed over, as the specification wants. Raises Malformed."""
    if len(raw) > TABLE_LIMIT_BYTES:
        raise Malformed(f"certificate table: {len(raw)} bytes, more than the limit of {TABLE_LIMIT_BYTES}")
    found: dict[str, bytes] = {}
    for index in range(_ROWS_LIMIT):
        row = raw[index * _ROW.size : (index + 1) * _ROW.size]
        if len(row) != _ROW.size:
            raise Malformed("certificate table: it ends without a closing row")
        guid, offset, length = _ROW.unpack(row)
        if row == bytes(_ROW.size):
            return CertificateTable(**found)
        if offset < (index + 2) * _ROW.size or offset + length > len(raw):
            raise Malformed(f"certificate table: row {index} points outside of the table")
        name = _NAMES.get(guid)
        if name in found:
            raise Malformed(f"certificate table: two rows for {name}")
        if name is not None and length:
            found[name] = raw[offset : offset + length]
    raise Malformed(f"certificate table: more than {_ROWS_LIMIT} rows")
