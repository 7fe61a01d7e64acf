"""The checks on evidence one by one, each with its outcome, and the verdict that they add up to."""

from __future__ import annotations

from dataclasses import dataclass

from attestation import collateral as tdx_collateral
from attestation import hardware
from attestation.collateral import AnyCollateral, Collateral
from attestation.evidence import Evidence, Kind
from attestation.explain.words import moment
from attestation.gpu.collateral import GpuCollateral
from attestation.machine import examine
from attestation.policy import MAINNET_GLOBAL_ID, Policy
from attestation.quote import parse as parse_quote
from attestation.report_data import Binding
from attestation.snp import hardware as snp_hardware
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import parse as parse_report
from attestation.strict import Malformed
from attestation.verify import Expected, Verdict, verify

_NO_BINDING = Binding(bytes(32), bytes(32), 0, bytes(32), bytes(32), 0, bytes(32))
"""Stands in where the check does not look at it."""
PASSED, FAILED, OPEN = "passed", "FAILED", "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judged:
    """`accepted` None: there is no verdict, for something that it needs is missing."""

    checks: tuple[Check, ...]
    accepted: bool | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A quote or report with what is known of it. `binding` None: a raw one."""

    kind: Kind
    quote: bytes
    binding: Binding | None = None
    gpu_evidence: bytes = b""


def judge(
    subject: Subject,
    collateral: AnyCollateral | None,
    policy: Policy | None,
    now: int,
    *,
    global_id: int = MAINNET_GLOBAL_ID,
    gpu_collateral: GpuCollateral | None = None,
) -> Judged:
    """At `now` (unix seconds). Never raises. Without a binding there is no verdict, whatever passes."""
    checks = [_hardware(subject, collateral, now), _policy(subject, collateral, policy, now), _binding(subject)]
    if subject.binding is None or collateral is None or policy is None:
        if any(check.outcome is FAILED for check in checks):
            return Judged(tuple(checks), False, tuple(check.reason for check in checks if check.outcome is FAILED))
        return Judged(tuple(checks), None, ())
    bound = subject.binding
    # For whom evidence should be is the asker's to say; here it is taken at its word, and the output says so.
    expected = Expected(global_id, bound.network_id, bound.node, bound.node_epoch, bound.signing_key)
    evidence = Evidence(subject.kind, subject.quote, bound, subject.gpu_evidence)
    verdict = verify(evidence, collateral, policy, now, expected=expected, block=None, gpu_collateral=gpu_collateral)
    if subject.gpu_evidence:
        checks.append(_gpus(policy, verdict))
    checks.append(Check("freshness", OPEN, f"masterchain block {bound.block_seqno} was not looked up"))
    checks.append(Check("addressee", OPEN, "network, node and key are what the evidence says; compare with the chain"))
    return Judged(tuple(checks), verdict.accepted, verdict.reasons)


def _gpus(policy: Policy, verdict: Verdict) -> Check:
    what = "GPUs, under NVIDIA's roots and manifests"
    if policy.gpu is None:
        return Check(what, OPEN, 'the policy leaves them to the measured image; gpu = "verify" in it judges them here')
    if verdict.accepted:
        return Check(what, PASSED, "; ".join(gpu.words() for gpu in verdict.gpus))
    reasons = [reason for reason in verdict.reasons if "GPU" in reason]
    return Check(what, FAILED if reasons else OPEN, "; ".join(reasons) or "other checks failed before")


def _hardware(subject: Subject, collateral: AnyCollateral | None, now: int) -> Check:
    what = "signatures, certificates and revocation up to the pinned root"
    if collateral is None:
        return Check(what, OPEN, "no collateral was given; name it with --collateral")
    try:
        if subject.kind is Kind.SEV_SNP:
            if not isinstance(collateral, AmdCollateral):
                raise Malformed("the collateral is Intel's, the report AMD's")
            snp = snp_hardware.check(subject.quote, collateral, now)
            return Check(what, PASSED, f"{snp.endorsement.product}; valid until {moment(snp.endorsement.expires_at)}")
        if not isinstance(collateral, Collateral):
            raise Malformed("the collateral is AMD's, the quote Intel's")
        found = hardware.check(subject.quote, collateral, subject.kind, now)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic inside the quote library is no Exception
        return Check(what, FAILED, _text(error) + _ended(collateral, now))
    test = "under the TEST root, which proves no hardware; " if subject.kind is Kind.SIMULATED else ""
    return Check(what, PASSED, f"{test}TCB {found.tcb_status}; valid until {moment(found.expires_at)}")


def _policy(subject: Subject, collateral: AnyCollateral | None, policy: Policy | None, now: int) -> Check:
    what = "image, platform and TCB against the policy"
    if collateral is None or policy is None:
        return Check(what, OPEN, "no collateral or no policy was given; name them with --collateral and --policy")
    binding = subject.binding or _NO_BINDING
    try:
        found = examine(Evidence(subject.kind, subject.quote, binding), collateral, policy, now)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return Check(what, OPEN, f"the hardware did not verify: {_text(error)}")
    if found.faults:
        return Check(what, FAILED, "; ".join(found.faults))
    return Check(what, PASSED, f"image {found.image.name!r}" if found.image else "")


def _binding(subject: Subject) -> Check:
    what = "REPORTDATA binds key, node and block"
    if subject.binding is None:
        return Check(what, OPEN, "a raw quote does not say what its REPORTDATA was made from")
    read = parse_report if subject.kind is Kind.SEV_SNP else parse_quote
    try:
        bound = read(subject.quote).report_data == subject.binding.report_data()
    except Malformed as error:
        return Check(what, FAILED, str(error))
    if bound:
        return Check(what, PASSED, "SHA-256 over tag, network, node, epoch, key, GPU evidence hash and block")
    return Check(what, FAILED, "they differ: the binding was altered, or belongs to another quote")


def _ended(collateral: AnyCollateral, now: int) -> str:
    """A hint where the collateral is over: an old quote is judged with --at."""
    if not isinstance(collateral, Collateral):
        return ""
    try:
        end = tdx_collateral.read(collateral).expires_at
    except Malformed:
        return ""
    return f"; the collateral ended at {moment(end)}: fetch it anew, or judge the past with --at" if end <= now else ""


def _text(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
