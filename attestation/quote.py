"""The bytes of a TDX quote (Intel TDX DCAP Quoting Library API, appendix A.3, quote versions 4 and 5).

Only structure is read here; signatures are checked in `attestation.verify`. The reading is strict on purpose: what no
signature covers (lengths, certificate encoding, padding) has exactly one accepted form, so a quote has one encoding.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from hashlib import sha256

from attestation.strict import Malformed

LIMIT_BYTES = 16 * 1024
"""Genuine quotes have about 5 KB; the driver's buffer is 8 KB."""

TEE_TDX = 0x81
HEADER_BYTES = 48
TD10_BYTES, TD15_BYTES, TD15EX_BYTES = 584, 648, 885
_BODY_BYTES = {2: TD10_BYTES, 3: TD15_BYTES, 4: TD15EX_BYTES}
_QE_REPORT_CERTIFICATION, _PCK_CHAIN = 6, 5
_SIGNATURE_AND_KEY_BYTES = 128
_QE_REPORT_AND_SIGNATURE_BYTES = 384 + 64
_DEBUG_GROUP = 0xFF
"""Bits 7:0 of the TD attributes, "TD under debug": any of them set makes the TD untrusted."""

_PEM_BEGIN, _PEM_END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"

# The TD report 1.0, which every newer body begins with.
_TD10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")


@dataclass(frozen=True, slots=True)
class TdQuote:
    """A parsed, unverified TDX quote. Measurement registers are 48 bytes each."""

    version: int
    tee_tcb_svn: bytes
    mr_seam: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    pck_chain_pem: bytes
    pck_chain: tuple[bytes, ...]
    """DER, leaf first, as embedded."""

    @property
    def measurement(self) -> bytes:
        return measurement(self.mrtd, self.rtmrs)

    @property
    def debug(self) -> bool:
        return self.td_attributes[0] & _DEBUG_GROUP != 0


def measurement(mrtd: bytes, rtmrs: tuple[bytes, bytes, bytes, bytes]) -> bytes:
    """The 32-byte name of an image: SHA-256(MRTD | RTMR0 | RTMR1 | RTMR2 | RTMR3), formed on chain in the same way."""
    if any(len(register) != 48 for register in (mrtd, *rtmrs)):
        raise Malformed("measurement: MRTD and RTMR0..3 must be 48 bytes each")
    return sha256(mrtd + b"".join(rtmrs)).digest()


def parse(quote: bytes) -> TdQuote:
    """Read a quote. Raises Malformed, naming the part that is wrong."""
    if len(quote) > LIMIT_BYTES:
        raise Malformed(f"quote: {len(quote)} bytes, more than the limit of {LIMIT_BYTES}")
    reader = _Reader(quote, "quote")
    header = reader.take(HEADER_BYTES, "header")
    version, _, tee = struct.unpack_from("<HHI", header)
    if tee != TEE_TDX:
        raise Malformed(f"quote: TEE type {tee:#x} is not TDX ({TEE_TDX:#x}); only TDX guests are admitted")
    body = _body(reader, version)
    certification = _Reader(reader.counted("<I", "signature data"), "signature data")
    if reader.rest().strip(b"\0"):
        raise Malformed("quote: bytes after its end that are not zero padding")
    certification.take(_SIGNATURE_AND_KEY_BYTES, "attestation signature and key")
    certification.expect(_QE_REPORT_CERTIFICATION, "certification data type")
    qe = _Reader(certification.counted("<I", "QE certification data"), "QE certification data")
    certification.end()
    qe.take(_QE_REPORT_AND_SIGNATURE_BYTES, "QE report")
    qe.counted("<H", "QE authentication data")
    qe.expect(_PCK_CHAIN, "PCK certification data type")
    pem = qe.counted("<I", "PCK certificate chain")
    qe.end()
    fields = _TD10.unpack_from(body)
    return TdQuote(
        version=version,
        tee_tcb_svn=fields[0],
        mr_seam=fields[1],
        td_attributes=fields[4],
        xfam=fields[5],
        mrtd=fields[6],
        mr_config_id=fields[7],
        mr_owner=fields[8],
        mr_owner_config=fields[9],
        rtmrs=(fields[10], fields[11], fields[12], fields[13]),
        report_data=fields[14],
        pck_chain_pem=pem,
        pck_chain=certificates(pem, "PCK certificate chain"),
    )


def certificates(pem: bytes, what: str) -> tuple[bytes, ...]:
    """DER of each certificate of a PEM chain in the one text that PEM prescribes, up to trailing NUL and newline.

    Raises Malformed. The DER itself is not looked into: a hostile certificate is for a robust parser, after signatures.
    """
    text = pem.rstrip(b"\0\n").replace(b"\r\n", b"\n") + b"\n"
    try:
        chain = tuple(
            base64.b64decode(block.partition(_PEM_END)[0]) for block in text.split(_PEM_BEGIN)[1:] if _PEM_END in block
        )
    except ValueError as error:
        raise Malformed(f"{what}: not PEM certificates ({error})") from error
    if b"".join(map(_pem, chain)) != text:
        raise Malformed(f"{what}: not in the one encoding that PEM prescribes; it was changed after it was made")
    return chain


def _pem(der: bytes) -> bytes:
    body = base64.b64encode(der)
    lines = b"".join(body[at : at + 64] + b"\n" for at in range(0, len(body), 64))
    return _PEM_BEGIN + lines + _PEM_END


def _body(reader: _Reader, version: int) -> bytes:
    if version == 4:
        return reader.take(TD10_BYTES, "TD report")
    if version != 5:
        raise Malformed(f"quote: version {version}; TDX quotes have version 4 or 5")
    kind = int.from_bytes(reader.take(2, "body type"), "little")
    size = int.from_bytes(reader.take(4, "body size"), "little")
    if _BODY_BYTES.get(kind) != size:
        raise Malformed(f"quote: body type {kind} with {size} bytes is not a TD report")
    return reader.take(size, "TD report")


class _Reader:
    """A cursor over bytes that never reads past the end."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def take(self, count: int, part: str) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise Malformed(f"{self._what}: ends inside its {part}; it was truncated")
        self._at += count
        return found

    def counted(self, size_format: str, part: str) -> bytes:
        size = struct.unpack(size_format, self.take(struct.calcsize(size_format), part))[0]
        return self.take(size, part)

    def expect(self, value: int, part: str) -> None:
        found = int.from_bytes(self.take(2, part), "little")
        if found != value:
            raise Malformed(f"{self._what}: {part} is {found}, only {value} is accepted")

    def rest(self) -> bytes:
        return self._data[self._at :]

    def end(self) -> None:
        if self.rest():
            raise Malformed(f"{self._what}: {len(self.rest())} bytes too many")
