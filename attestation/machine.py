"""One shape for what a TDX quote and an SEV-SNP report say, so that the verdict is formed in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attestation import hardware
from attestation.collateral import AnyCollateral, Collateral
from attestation.evidence import Evidence, Kind
from attestation.hardware import Hardware
from attestation.policy import AllowedImage, Policy, Technology
from attestation.quote import TdQuote
from attestation.snp import hardware as snp_hardware
from attestation.snp import policy as snp_policy
from attestation.snp.collateral import AmdCollateral
from attestation.snp.hardware import SnpHardware
from attestation.strict import Malformed


@dataclass(frozen=True, slots=True)
class Machine:
    """Evidence whose signatures verified, held against the policy's images and platform rules."""

    report_data: bytes
    measurement: bytes
    image: AllowedImage | None
    platform: bytes
    product: str
    """FMSPC of an Intel platform, the processor line of an AMD one."""
    tcb_status: str
    advisory_ids: tuple[str, ...]
    evaluation_number: int
    expires_at: int
    """Unix seconds, exclusive."""
    faults: tuple[str, ...]
    """What the policy does not accept, one sentence each."""


def examine(evidence: Evidence, collateral: AnyCollateral, policy: Policy, now: int) -> Machine:
    """Verify evidence at `now` (unix seconds) under the roots of its kind. Raises ValueError."""
    if evidence.kind is Kind.SEV_SNP:
        if not isinstance(collateral, AmdCollateral):
            raise Malformed("SEV-SNP evidence came with Intel's collateral; give AMD's certificates")
        return _snp(snp_hardware.check(evidence.quote, collateral, now), policy)
    if not isinstance(collateral, Collateral):
        raise Malformed("a TDX quote came with AMD's certificates; give Intel's collateral")
    return _tdx(hardware.check(evidence.quote, collateral, evidence.kind, now), policy)


def _tdx(found: Hardware, policy: Policy) -> Machine:
    quote = found.quote
    image = policy.image(quote.measurement, Technology.TDX)
    return Machine(
        report_data=quote.report_data,
        measurement=quote.measurement,
        image=image,
        platform=found.platform,
        product=found.fmspc,
        tcb_status=found.tcb_status,
        advisory_ids=found.advisory_ids,
        evaluation_number=found.evaluation_number,
        expires_at=found.expires_at,
        faults=(*_image_faults(quote, image, policy), *_tcb_faults(found, policy)),
    )


def _snp(found: SnpHardware, policy: Policy) -> Machine:
    report = found.report
    image = policy.image(report.measurement, Technology.SEV_SNP)
    faults = [*snp_policy.faults(found, policy.snp)]
    if image is None:
        faults.append(_unknown(report.measurement, policy))
    else:
        for name in ("host_data", "id_key_digest", "author_key_digest"):
            if getattr(report, name) != getattr(image, name):
                faults.append(f"{name} is {getattr(report, name).hex()}, which image {image.name!r} may not run with")
        if report.guest_svn < image.min_guest_svn:
            faults.append(f"guest SVN is {report.guest_svn}, image {image.name!r} needs {image.min_guest_svn}")
    return Machine(
        report_data=report.report_data,
        measurement=report.measurement,
        image=image,
        platform=found.platform,
        product=found.endorsement.product.value,
        tcb_status=str(found.tcb.committed),
        advisory_ids=(),
        evaluation_number=0,
        expires_at=found.endorsement.expires_at,
        faults=tuple(faults),
    )


def _image_faults(quote: TdQuote, image: AllowedImage | None, policy: Policy) -> list[str]:
    faults = []
    if quote.debug:
        faults.append("the guest runs in debug mode: its host can read its memory")
    if image is None:
        faults.append(_unknown(quote.measurement, policy))
        return faults
    for name in ("mr_config_id", "mr_owner", "mr_owner_config"):
        if getattr(quote, name) != getattr(image, name):
            faults.append(f"{name} is {getattr(quote, name).hex()}, which image {image.name!r} may not run with")
    return faults


def _unknown(measurement: bytes, policy: Policy) -> str:
    if not policy.images:
        return "the policy's allow-list of images is empty, so it accepts nothing; name the released images in it"
    return f"measurement {measurement.hex()} is not on the allow-list"


def _tcb_faults(found: Hardware, policy: Policy) -> Iterator[str]:
    if found.tcb_status not in policy.tcb_statuses:
        accepted = ", ".join(sorted(policy.tcb_statuses)) or "none"
        advisories = ", ".join(found.advisory_ids) or "none named"
        yield (
            f"TCB status is {found.tcb_status} (advisories: {advisories}), the policy accepts: {accepted}; update the "
            "platform's firmware and TDX module"
        )
    denied = sorted(policy.denied_advisories.intersection(found.advisory_ids))
    if denied:
        yield f"the platform is subject to {', '.join(denied)}, which the policy denies"
    if found.evaluation_number < policy.min_evaluation_number:
        yield (
            f"the collateral has evaluation number {found.evaluation_number}, the policy wants at least "
            f"{policy.min_evaluation_number}; fetch the current collateral"
        )
