"""The simulated TEE: makes TDX version 4 quotes, byte for byte in the real layout."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256, sha384

from attestation import quote as td
from attestation.evidence import Kind
from attestation.report_data import REPORT_DATA_BYTES
from attestation.simulated import pki
from attestation.simulated.platform import CPU_SVN, TEE_TCB_SVN, Platform

QE_MRSIGNER = sha256(b"cocoon simulated quoting enclave").digest()
QE_PRODUCT_ID = 2
QE_SVN = 6
QE_ATTRIBUTES = bytes.fromhex("1500000000000000e700000000000000")
_INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_ECDSA_P256 = 2
_QE_AUTH_DATA = bytes(range(32))
SEPT_VE_DISABLE = bytes.fromhex("0000001000000000")
"""TD attributes of a production guest."""
_XFAM = bytes.fromhex("e702060000000000")
WORKER_IMAGE = "worker"


@dataclass(frozen=True, slots=True)
class Registers:
    """The measured state of a simulated guest. Registers are 48 bytes."""

    mrtd: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    td_attributes: bytes = SEPT_VE_DISABLE
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)

    @classmethod
    def of_image(cls, image: str = WORKER_IMAGE) -> Registers:
        """What an image of this name would measure to. A name only: nothing is really measured."""
        mrtd, *rtmrs = (sha384(f"cocoon simulated image {image}: {part}".encode()).digest() for part in range(5))
        return cls(mrtd, (rtmrs[0], rtmrs[1], rtmrs[2], rtmrs[3]))

    @property
    def measurement(self) -> bytes:
        return td.measurement(self.mrtd, self.rtmrs)


class SimulatedTee:
    """A quote provider without hardware. Deterministic: one platform secret, image and REPORTDATA give one quote."""

    kind = Kind.SIMULATED

    def __init__(self, platform_secret: bytes, registers: Registers | None = None) -> None:
        self.platform = Platform.from_secret(platform_secret)
        self.registers = registers or Registers.of_image()

    @property
    def platform_id(self) -> bytes:
        """SHA-256 of the PPID, as a verdict names the machine."""
        return sha256(self.platform.ppid).digest()

    def quote(self, report_data: bytes) -> bytes:
        """A TDX v4 quote over 64 bytes of REPORTDATA. Raises ValueError on another size."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"REPORTDATA must be {REPORT_DATA_BYTES} bytes, got {len(report_data)}")
        header = struct.pack("<HHIHH16s20s", 4, _ECDSA_P256, td.TEE_TDX, 0, 0, _INTEL_QE_VENDOR, bytes(20))
        signed = header + self._td_report(report_data)
        key = self.platform.attestation_key
        signature = pki.raw_signature(key, signed) + pki.raw_public_key(key)
        signature += _counted("<HI", 6, self._qe_certification())
        return signed + struct.pack("<I", len(signature)) + signature

    def _td_report(self, report_data: bytes) -> bytes:
        registers = self.registers
        return b"".join(
            (
                TEE_TCB_SVN,
                sha384(b"cocoon simulated TDX module").digest(),
                bytes(48),  # MRSIGNERSEAM: zero is Intel
                bytes(8),
                registers.td_attributes,
                _XFAM,
                registers.mrtd,
                registers.mr_config_id,
                registers.mr_owner,
                registers.mr_owner_config,
                *registers.rtmrs,
                report_data,
            )
        )

    def _qe_certification(self) -> bytes:
        """The quoting enclave vouches for the attestation key; the PCK key vouches for the quoting enclave."""
        vouched = sha256(pki.raw_public_key(self.platform.attestation_key) + _QE_AUTH_DATA).digest()
        report = struct.pack(
            "<16sI28s16s32s32s32s96sHH60s64s",
            CPU_SVN,
            0,
            bytes(28),
            QE_ATTRIBUTES,
            sha256(b"cocoon simulated quoting enclave code").digest(),
            bytes(32),
            QE_MRSIGNER,
            bytes(96),
            QE_PRODUCT_ID,
            QE_SVN,
            bytes(60),
            vouched,
        )
        return b"".join(
            (
                report,
                pki.raw_signature(self.platform.pck.key, report),
                _counted("<H", None, _QE_AUTH_DATA),
                _counted("<HI", 5, self.platform.chain_pem + b"\0"),
            )
        )


def _counted(size_format: str, kind: int | None, body: bytes) -> bytes:
    numbers = (len(body),) if kind is None else (kind, len(body))
    return struct.pack(size_format, *numbers) + body
