"""Raw evidence of a machine's GPUs as it is bound into REPORTDATA and published: one encoding per content.

    u32 tag | u8 count | count * ( u8 certificates | certificates * (u16 length | DER) | u16 length | report )

All numbers big-endian. Reference manifests are not in it: they are NVIDIA's statements, not the machine's, and which
ones apply follows from the reports.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from hashlib import sha256

from attestation.evidence import GPU_EVIDENCE_LIMIT_BYTES as LIMIT_BYTES
from attestation.strict import Malformed

MAX_DEVICES = 16
MAX_CERTIFICATES = 8
REPORT_LIMIT_BYTES = 0x2000
"""NVML_CC_GPU_ATTESTATION_REPORT_SIZE."""
NONCE_BYTES = 32
TAG = zlib.crc32(b"cocoon.gpuevidence.v1").to_bytes(4, "big")
_NONCE_TAG = zlib.crc32(b"cocoon.gpunonce.v1").to_bytes(4, "big")


def nonce(signing_key: bytes, block_root_hash: bytes) -> bytes:
    """What every GPU of a machine signs, 32 bytes: its report is for this key and younger than this block."""
    if len(signing_key) != 32 or len(block_root_hash) != 32:
        raise ValueError("signing key and block root hash must be 32 bytes each; give the raw bytes, not hex")
    return sha256(_NONCE_TAG + signing_key + block_root_hash).digest()


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """What one GPU says about itself."""

    chain: tuple[bytes, ...]
    """Certificates in DER: the attestation key's first, NVIDIA's device root last."""
    report: bytes
    """SPDM request and response, as the driver returns them."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.chain) <= MAX_CERTIFICATES:
            raise Malformed(f"GPU evidence: a chain must have 2 to {MAX_CERTIFICATES} certificates")
        if not all(0 < len(each) < 1 << 16 for each in self.chain):
            raise Malformed("GPU evidence: a certificate must be 1 to 65535 bytes in DER")
        if not 0 < len(self.report) <= REPORT_LIMIT_BYTES:
            raise Malformed(f"GPU evidence: a report must be 1 to {REPORT_LIMIT_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    devices: tuple[DeviceEvidence, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.devices) <= MAX_DEVICES:
            raise Malformed(f"GPU evidence: must be of 1 to {MAX_DEVICES} GPUs")

    def to_bytes(self) -> bytes:
        """Raises Malformed when it is over the limit."""
        parts = [TAG, bytes([len(self.devices)])]
        for device in self.devices:
            parts.append(bytes([len(device.chain)]))
            parts += [_counted(each) for each in (*device.chain, device.report)]
        whole = b"".join(parts)
        if len(whole) > LIMIT_BYTES:
            raise Malformed(f"GPU evidence: {len(whole)} bytes, more than the limit of {LIMIT_BYTES}")
        return whole

    @classmethod
    def from_bytes(cls, raw: bytes) -> GpuEvidence:
        """Raises Malformed on anything that `to_bytes` does not make."""
        if len(raw) > LIMIT_BYTES:
            raise Malformed(f"GPU evidence: {len(raw)} bytes, more than the limit of {LIMIT_BYTES}")
        reader = Reader(raw, "GPU evidence")
        if reader.take(4) != TAG:
            raise Malformed("GPU evidence: unknown version; upgrade the older side")
        devices = []
        for _ in range(reader.take(1)[0]):
            chain = tuple(reader.take(reader.number(2)) for _ in range(reader.take(1)[0]))
            devices.append(DeviceEvidence(chain, reader.take(reader.number(2))))
        reader.end()
        return cls(tuple(devices))


class Reader:
    """Bytes read once from front to end. Every shortage and every surplus is Malformed."""

    def __init__(self, raw: bytes, what: str) -> None:
        self._raw, self._at, self._what = raw, 0, what

    @property
    def left(self) -> int:
        return len(self._raw) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed(f"{self._what}: ends {count - self.left} bytes early")
        self._at += count
        return self._raw[self._at - count : self._at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def little(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def end(self) -> None:
        if self.left:
            raise Malformed(f"{self._what}: {self.left} bytes after its end")


def _counted(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw
