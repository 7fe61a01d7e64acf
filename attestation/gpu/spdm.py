"""The report that a GPU signs: SPDM 1.1 GET_MEASUREMENTS and its MEASUREMENTS response (DSP0274, 10.11).

The driver returns request and response back to back; the signature covers all of it but itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from attestation.gpu.envelope import NONCE_BYTES, Reader
from attestation.strict import Malformed

_VERSION = 0x11
_GET_MEASUREMENTS, _MEASUREMENTS = 0xE0, 0x60
_SIGNED, _ALL_BLOCKS = 0x01, 0xFF
_DMTF = 0x01
_OPAQUE_LIMIT_BYTES = 1024
"""DSP0274: opaque data of this message is at most 1024 bytes."""
SIGNATURE_BYTES = 96
"""ECDSA P-384, r||s big-endian."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report taken apart. Nothing in it is worth anything before `verify` was called with a trusted key."""

    nonce: bytes
    """The requester's 32 bytes."""
    measurements: dict[int, bytes]
    """By index of the manifests, which count from 0; SPDM's block index is one higher."""
    opaque: bytes
    signed: bytes
    signature: bytes

    def verify(self, key: ec.EllipticCurvePublicKey) -> None:
        """Raises Malformed unless the device's key signed exactly these bytes."""
        r, s = (int.from_bytes(self.signature[at : at + 48], "big") for at in (0, 48))
        try:
            key.verify(encode_dss_signature(r, s), self.signed, ec.ECDSA(SHA384()))
        except InvalidSignature:
            raise Malformed("the report's signature is not by the key that its certificates name") from None


def parse(raw: bytes) -> Report:
    """Raises Malformed."""
    reader = Reader(raw, "GPU report")
    slot = _request_slot(reader.take(4 + NONCE_BYTES + 1))
    version, code, _, status, blocks = reader.take(5)
    if (version, code) != (_VERSION, _MEASUREMENTS):
        raise Malformed(f"GPU report: response {version:#x} {code:#x} is not SPDM 1.1 MEASUREMENTS")
    if status & 0x0F != slot:
        raise Malformed("GPU report: signed with another certificate slot than was asked for")
    measurements = _measurements(reader.take(reader.little(3)), blocks)
    reader.take(NONCE_BYTES)
    length = reader.little(2)
    if length > _OPAQUE_LIMIT_BYTES:
        raise Malformed(f"GPU report: opaque data of {length} bytes, SPDM allows {_OPAQUE_LIMIT_BYTES}")
    opaque = reader.take(length)
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    return Report(raw[4 : 4 + NONCE_BYTES], measurements, opaque, raw[:-SIGNATURE_BYTES], signature)


def _request_slot(request: bytes) -> int:
    # A request for fewer blocks, or for none to be signed, would be answered too: it is refused here.
    if tuple(request[:4]) != (_VERSION, _GET_MEASUREMENTS, _SIGNED, _ALL_BLOCKS):
        raise Malformed("GPU report: the request is not SPDM 1.1 GET_MEASUREMENTS for all blocks, signed")
    slot = request[-1]
    if slot > 7:
        raise Malformed(f"GPU report: certificate slot {slot} does not exist")
    return slot


def _measurements(record: bytes, blocks: int) -> dict[int, bytes]:
    reader = Reader(record, "GPU report's measurements")
    found: dict[int, bytes] = {}
    for _ in range(blocks):
        index, specification = reader.take(2)
        size = reader.little(2)
        if specification != _DMTF:
            raise Malformed(f"GPU report: block {index} follows specification {specification:#x}, not DMTF's")
        block = Reader(reader.take(size), f"GPU report's block {index}")
        block.take(1)
        value = block.take(block.little(2))
        block.end()
        if index in (0, 0xFF) or index - 1 in found:
            raise Malformed(f"GPU report: block index {index} is reserved or appears twice")
        found[index - 1] = value
    reader.end()
    if not found:
        raise Malformed("GPU report: it holds no measurements")
    return found
