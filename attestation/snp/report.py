"""The bytes of an SEV-SNP attestation report (AMD SEV-SNP ABI, document 56860, table ATTESTATION_REPORT).

Versions 2, 3 and 5. Only structure is read here, and strictly: every reserved bit and byte is zero, the signature has
one encoding, nothing follows. A bit that a later firmware gives a meaning is refused until somebody has read what it
means.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from attestation.snp.products import Product, TcbVersion, is_model_of, parse_tcb
from attestation.strict import Malformed

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
VERSIONS = (2, 3, 5)
CHIP_ID_BYTES = 64
_SIGNATURE_PART_BYTES, _SCALAR_BYTES = 72, 48
_ECDSA_P384_SHA384 = 1

# Field by field from offset 0 to the signature; x marks bytes that are checked to be zero below.
_BODY = struct.Struct("<II8s16s16sII8sQI4s64s48s32s48s48s32s32s8s24s64s8s4s4s8s16s152s")
assert _BODY.size == SIGNED_BYTES

_POLICY_RESERVED = ~((1 << 26) - 1) & (1 << 64) - 1
_POLICY_MUST_BE_ONE = 1 << 17
_PLATFORM_KNOWN = 0b1011_1111
_FLAGS_KNOWN = 0b1_1111


class SigningKey(IntEnum):
    """Which kind of key signed the report."""

    VCEK = 0
    """The chip's own, versioned by its TCB."""
    VLEK = 1
    """A cloud provider's, loaded by AMD for its fleet."""


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """What the guest's owner allows the host to do; fixed at launch."""

    abi: tuple[int, int]
    """Lowest firmware interface (major, minor) that the guest may run on."""
    smt: bool
    migration_agent: bool
    debug: bool
    single_socket: bool
    cxl: bool


@dataclass(frozen=True, slots=True)
class SnpReport:
    """A parsed, unverified report. TCB versions stay raw until the product is known."""

    version: int
    guest_svn: int
    policy: GuestPolicy
    vmpl: int
    smt_enabled: bool
    alias_check_complete: bool
    """The firmware found no memory module that answers to two addresses (AMD-SB-3015)."""
    signing_key: SigningKey
    report_data: bytes
    launch_digest: bytes
    """MEASUREMENT, 48 bytes."""
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    chip_id: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    current_abi: tuple[int, int]
    committed_abi: tuple[int, int]
    cpu: tuple[int, int] | None
    """CPUID family and model; None before version 3."""
    signature: tuple[int, int]
    signed: bytes

    @property
    def measurement(self) -> bytes:
        return measurement(self.launch_digest)

    @property
    def chip_id_masked(self) -> bool:
        return not any(self.chip_id)


@dataclass(frozen=True, slots=True)
class TcbVersions:
    current: TcbVersion
    reported: TcbVersion
    committed: TcbVersion
    launch: TcbVersion


def measurement(launch_digest: bytes) -> bytes:
    """The 32-byte name of an image: SHA-256 of the 48-byte launch digest."""
    if len(launch_digest) != 48:
        raise Malformed("measurement: an SEV-SNP launch digest has 48 bytes")
    return sha256(launch_digest).digest()


def parse(raw: bytes) -> SnpReport:
    """Read a report. Raises Malformed, naming the part that is wrong."""
    if len(raw) != REPORT_BYTES:
        raise Malformed(f"SEV-SNP report: {len(raw)} bytes, expected {REPORT_BYTES}")
    (
        version, guest_svn, policy, _family_id, _image_id, vmpl, algorithm, current_tcb, platform, flags, gap,
        report_data, launch_digest, host_data, id_key, author_key, _report_id, agent_id, reported_tcb, cpu,
        chip_id, committed_tcb, current_abi, committed_abi, launch_tcb, mitigations, tail,
    ) = _BODY.unpack_from(raw)  # fmt: skip
    if version not in VERSIONS:
        raise Malformed(f"SEV-SNP report: version {version}; this program reads {', '.join(map(str, VERSIONS))}")
    if algorithm != _ECDSA_P384_SHA384:
        raise Malformed(f"SEV-SNP report: signature algorithm {algorithm}, only ECDSA P-384 with SHA-384 is known")
    _zero(gap, "bytes 4C to 4F")
    _zero(current_abi[3:] + committed_abi[3:], "bytes 1EB and 1EF")
    _zero(mitigations if version < 5 else b"", "bytes 1F8 to 207")
    _zero(tail, "bytes 208 to 29F")
    if platform & ~_PLATFORM_KNOWN:
        raise Malformed(f"SEV-SNP report: PLATFORM_INFO {platform:#x} has bits that this program does not know")
    # All ones where no migration agent is bound; older firmware leaves zeros.
    if agent_id not in (bytes(32), b"\xff" * 32):
        raise Malformed("SEV-SNP report: a migration agent is bound to the guest; it could carry its memory elsewhere")
    author_key_used, signing_key = _flags(flags)
    if not author_key_used:
        _zero(author_key, "AUTHOR_KEY_DIGEST without an author key")
    return SnpReport(
        version=version,
        guest_svn=guest_svn,
        policy=_guest_policy(int.from_bytes(policy, "little")),
        vmpl=vmpl,
        smt_enabled=bool(platform & 1),
        alias_check_complete=bool(platform >> 5 & 1),
        signing_key=signing_key,
        report_data=report_data,
        launch_digest=launch_digest,
        host_data=host_data,
        id_key_digest=id_key,
        author_key_digest=author_key,
        chip_id=chip_id,
        current_tcb=current_tcb,
        reported_tcb=reported_tcb,
        committed_tcb=committed_tcb,
        launch_tcb=launch_tcb,
        current_abi=(current_abi[2], current_abi[1]),
        committed_abi=(committed_abi[2], committed_abi[1]),
        cpu=_cpu(cpu, version),
        signature=_signature(raw[SIGNED_BYTES:]),
        signed=raw[:SIGNED_BYTES],
    )


def tcb_versions(report: SnpReport, product: Product) -> TcbVersions:
    """The report's TCB versions as this line writes them. Raises Malformed where they contradict each other."""
    if report.cpu is not None and not is_model_of(product, *report.cpu):
        family, model = report.cpu
        raise Malformed(f"SEV-SNP report: it is from CPU family {family:#x}, model {model:#x}, which is no {product}")
    names = ("current", "reported", "committed", "launch")
    found = TcbVersions(**{name: parse_tcb(getattr(report, f"{name}_tcb"), product, f"{name} TCB") for name in names})
    # The firmware guarantees this order; a report without it was not made by one that keeps the ABI.
    if not found.committed.reaches(found.reported):
        raise Malformed("SEV-SNP report: the reported TCB is above the committed one; the host could roll it back")
    if not found.current.reaches(found.committed):
        raise Malformed("SEV-SNP report: the committed TCB is above the current one")
    if not found.current.reaches(found.launch):
        raise Malformed("SEV-SNP report: the guest was launched under a TCB above the current one")
    return found


def _zero(part: bytes, what: str) -> None:
    if any(part):
        raise Malformed(f"SEV-SNP report: {what} must be zero; this program does not know what they mean")


def _flags(flags: int) -> tuple[bool, SigningKey]:
    """(whether AUTHOR_KEY_DIGEST is present, the signing key)."""
    if flags & ~_FLAGS_KNOWN:
        raise Malformed(f"SEV-SNP report: flags {flags:#x} have bits that this program does not know")
    if flags >> 1 & 1:
        raise Malformed("SEV-SNP report: the host masked the chip's key, so the report is signed by none")
    key = flags >> 2 & 7
    if key not in list(SigningKey):
        raise Malformed(f"SEV-SNP report: signing key {key} is neither VCEK (0) nor VLEK (1)")
    return bool(flags & 1), SigningKey(key)


def _guest_policy(bits: int) -> GuestPolicy:
    if bits & _POLICY_RESERVED or not bits & _POLICY_MUST_BE_ONE:
        raise Malformed(f"SEV-SNP report: guest policy {bits:#x} has reserved bits that are not as prescribed")
    return GuestPolicy(
        abi=(bits >> 8 & 0xFF, bits & 0xFF),
        smt=bool(bits >> 16 & 1),
        migration_agent=bool(bits >> 18 & 1),
        debug=bool(bits >> 19 & 1),
        single_socket=bool(bits >> 20 & 1),
        cxl=bool(bits >> 21 & 1),
    )


def _cpu(part: bytes, version: int) -> tuple[int, int] | None:
    known = 3 if version >= 3 else 0
    _zero(part[known:], "bytes 188 to 19F")
    return (part[0], part[1]) if known else None


def _signature(part: bytes) -> tuple[int, int]:
    """(r, s): little-endian, 48 significant bytes in 72 each; the rest of the 512 bytes is zero."""
    scalars = [part[at : at + _SIGNATURE_PART_BYTES] for at in (0, _SIGNATURE_PART_BYTES)]
    _zero(part[2 * _SIGNATURE_PART_BYTES :] + b"".join(each[_SCALAR_BYTES:] for each in scalars), "padding of it")
    r, s = (int.from_bytes(each[:_SCALAR_BYTES], "little") for each in scalars)
    return r, s
