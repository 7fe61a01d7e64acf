"""What the hardware vouches for: one SEV-SNP report, checked from AMD's pinned root down to its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from attestation.snp.certificates import Endorsement, endorse
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import SigningKey, SnpReport, TcbVersions, parse, tcb_versions
from attestation.strict import Malformed

_MASKED_TAG = b"cocoon.snp.masked-chip.v1\0"


@dataclass(frozen=True, slots=True)
class SnpHardware:
    """A report that verified. It says what ran and where, not whether that is wanted: that is a policy's to say."""

    report: SnpReport
    endorsement: Endorsement
    tcb: TcbVersions
    platform: bytes
    """SHA-256 of CHIP_ID: one processor. Where the host masks it: one value for all machines of the provider, so that
    they can run one node between them and not one each."""


def check(raw: bytes, collateral: AmdCollateral, now: int) -> SnpHardware:
    """Verify a report at `now` (unix seconds). Raises ValueError (Malformed among them)."""
    report = parse(raw)
    endorsement = endorse(collateral.endorsement, collateral.authority, collateral.crl, report.signing_key, now)
    _check_signature(report, endorsement)
    tcb = tcb_versions(report, endorsement.product)
    # The secure processor derives its key from the reported TCB: a key of another TCB signs for another firmware.
    if endorsement.tcb != tcb.reported:
        raise Malformed(
            f"the certificate is for TCB {endorsement.tcb}, the report has {tcb.reported}; fetch the "
            "certificate of the reported TCB"
        )
    if report.signing_key is SigningKey.VCEK:
        _check_chip(report, endorsement)
    return SnpHardware(report, endorsement, tcb, _platform(report, endorsement))


def _check_signature(report: SnpReport, endorsement: Endorsement) -> None:
    try:
        endorsement.key.verify(encode_dss_signature(*report.signature), report.signed, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise Malformed(
            f"the report is not signed by the {report.signing_key.name} given with it; it was altered, or the "
            "certificate is another chip's or another TCB's"
        ) from error


def _check_chip(report: SnpReport, endorsement: Endorsement) -> None:
    # Where the host masks CHIP_ID the certificate still names the chip, but the report does not: a policy decides.
    if report.chip_id_masked:
        return
    if report.chip_id != endorsement.hardware_id.ljust(len(report.chip_id), b"\0"):
        raise Malformed("the certificate is for another chip than the report's")


def _platform(report: SnpReport, endorsement: Endorsement) -> bytes:
    if not report.chip_id_masked:
        return sha256(report.chip_id).digest()
    if endorsement.hardware_id:
        return sha256(endorsement.hardware_id.ljust(len(report.chip_id), b"\0")).digest()
    return sha256(_MASKED_TAG + endorsement.provider.encode()).digest()
