"""One simulated machine: what Intel's provisioning would have written into its PCK certificate."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.simulated import pki

FMSPC = bytes.fromhex("5c0000000000")
PCE_ID = bytes(2)
CPU_SVN = bytes((3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0))
PCE_SVN = 13
TEE_TCB_SVN = bytes((6, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
"""Module ISVSVN 6, module version 1 (identity TDX_01), microcode 3."""

_SGX_EXTENSION = "1.2.840.113741.1.13.1"


@dataclass(frozen=True, slots=True)
class Platform:
    """Keys and identity of a simulated machine, all determined by its secret."""

    ppid: bytes
    pck: pki.Authority
    attestation_key: ec.EllipticCurvePrivateKey

    @classmethod
    def from_secret(cls, secret: bytes) -> Platform:
        """The same secret is the same machine. Raises ValueError for an empty one."""
        if not secret:
            raise ValueError("a simulated platform needs a secret of at least one byte; write random bytes to its file")
        ppid = sha256(b"simulated ppid\0" + secret).digest()[:16]
        pck = pki.pck_certificate(pki.derive_key("simulated pck", secret), sgx_extension(ppid))
        return cls(ppid, pck, pki.derive_key("simulated attestation key", secret))

    @property
    def chain_pem(self) -> bytes:
        return (self.pck.pem + pki.platform_ca().pem + pki.root().pem).encode()


def sgx_extension(ppid: bytes) -> bytes:
    """DER of the SGX extension of a PCK certificate (Intel SGX PCK Certificate and CRL Profile Specification, 3.4)."""
    components = [_entry(f"2.{index}", _integer(svn)) for index, svn in enumerate(CPU_SVN, 1)]
    tcb = _sequence(*components, _entry("2.17", _integer(PCE_SVN)), _entry("2.18", _octets(CPU_SVN)))
    flags = _sequence(*(_entry(f"7.{index}", b"\x01\x01\xff") for index in (1, 2, 3)))
    return _sequence(
        _entry("1", _octets(ppid)),
        _entry("2", tcb),
        _entry("3", _octets(PCE_ID)),
        _entry("4", _octets(FMSPC)),
        _entry("5", b"\x0a\x01\x01"),
        _entry("6", _octets(sha256(ppid).digest()[:16])),
        _entry("7", flags),
    )


def _entry(suffix: str, value: bytes) -> bytes:
    return _sequence(_object_identifier(f"{_SGX_EXTENSION}.{suffix}"), value)


def _tagged(tag: int, body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(value: bytes) -> bytes:
    return _tagged(0x04, value)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _object_identifier(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    body = bytearray((first * 40 + second,))
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return _tagged(0x06, bytes(body))
