"""The verdict on one piece of evidence: pure, one for every kind of hardware, and closed to every doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attestation.collateral import AnyCollateral
from attestation.evidence import Evidence, Kind, gpu_evidence_hash
from attestation.gpu import envelope
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.verify import Gpu, GpuVerdict, verify_gpu
from attestation.machine import Machine, examine
from attestation.policy import AllowedImage, Policy, Tier
from attestation.report_data import NO_GPU

CLOCK_SKEW_SECONDS = 60
"""How far a block's time may lie ahead of the verifier's clock."""


class EvidenceRejected(Exception):
    """Evidence did not pass. The text holds every reason."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the verifier knows by itself; evidence for anything else is somebody else's, or an old one."""

    global_id: int
    """GLOBALID of the chain: -239 is mainnet, where simulated evidence is refused whatever the policy says."""
    network_id: bytes
    node: bytes
    node_epoch: int
    signing_key: bytes | None = None
    """The key that the chain names; None where the evidence introduces the key (admission)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A masterchain block as the verifier found it on the chain. `time` in unix seconds."""

    seqno: int
    root_hash: bytes
    time: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome. When rejected, everything below `reasons` is empty or zero, so that nothing of it can be used."""

    accepted: bool
    reasons: tuple[str, ...]
    """Why it was rejected, one sentence each; empty when accepted."""
    simulated: bool = False
    """True: the quote ends in the test root and proves no hardware. Show it wherever the verdict is shown."""
    signing_key: bytes = b""
    measurement: bytes = b""
    image_name: str = ""
    platform: bytes = b""
    """SHA-256 of the PPID in the PCK certificate (Intel) or of CHIP_ID (AMD): one machine."""
    product: str = ""
    """FMSPC of an Intel platform, the processor line of an AMD one ("Milan")."""
    tier: Tier = Tier.SIMULATED
    attested_until: int = 0
    """Unix seconds, exclusive: earliest end of anything relied on, capped by the policy."""
    block_seqno: int = 0
    block_checked: bool = False
    """False: the policy let evidence pass whose block, and so whose age, was not looked up."""
    tcb_status: str = ""
    """Intel's status; for AMD, which publishes none, the committed security patch levels."""
    advisory_ids: tuple[str, ...] = ()
    evaluation_number: int = 0
    gpus: tuple[Gpu, ...] = ()
    """The GPUs whose raw evidence was verified here. Empty where the policy leaves that to the measured image."""

    def require(self) -> Verdict:
        """Itself when accepted. Raises EvidenceRejected."""
        if not self.accepted:
            raise EvidenceRejected("; ".join(self.reasons))
        return self


def verify(
    evidence: Evidence,
    collateral: AnyCollateral,
    policy: Policy,
    now: int,
    *,
    expected: Expected,
    block: Block | None = None,
    gpu_collateral: GpuCollateral | None = None,
) -> Verdict:
    """Judge evidence at `now` (unix seconds). Never raises: whatever goes wrong is a rejection with its reason.

    `block` is the chain's block with the seqno that the evidence binds; without it the evidence is rejected unless the
    policy says otherwise. `gpu_collateral` is read where the policy wants GPU evidence verified again.
    """
    try:
        gpus = _gpus(evidence, gpu_collateral or GpuCollateral(), policy, now)
        return _verify(evidence, collateral, policy, now, expected, block, gpus)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Not only Exception: a panic inside the quote library is none, and is a rejection like any other failure.
        return Verdict(False, (_in_words(error),))


def _verify(
    evidence: Evidence,
    collateral: AnyCollateral,
    policy: Policy,
    now: int,
    expected: Expected,
    block: Block | None,
    gpus: GpuVerdict | None,
) -> Verdict:
    if evidence.kind is Kind.SIMULATED and not policy.simulated_allowed(expected.global_id):
        return Verdict(False, (_simulated_refusal(policy),))
    found = examine(evidence, collateral, policy, now)
    image = found.image
    tier = _tier(evidence, image)
    ends = [found.expires_at, (block.time if block else now) + policy.max_validity_seconds]
    if gpus is not None and gpus.accepted:
        ends.append(gpus.expires_at)
    attested_until = min(ends)
    reasons = [
        *_binding_faults(evidence, found.report_data, expected),
        *_block_faults(evidence, policy, now, block),
        *found.faults,
        *_platform_faults(found, policy),
        *(gpus.reasons if gpus is not None else ()),
    ]
    if tier not in policy.tiers:
        accepted = ", ".join(sorted(each.name.lower() for each in policy.tiers)) or "none"
        reasons.append(f"tier {tier.name.lower()} is not accepted; the policy accepts: {accepted}")
    if attested_until <= now:
        reasons.append(f"it ended at {attested_until}, now is {now}; quote again and fetch the current collateral")
    if reasons or image is None:
        return Verdict(False, tuple(reasons))
    return Verdict(
        accepted=True,
        reasons=(),
        simulated=evidence.kind is Kind.SIMULATED,
        signing_key=evidence.binding.signing_key,
        measurement=found.measurement,
        image_name=image.name,
        platform=found.platform,
        product=found.product,
        tier=tier,
        attested_until=attested_until,
        block_seqno=evidence.binding.block_seqno,
        block_checked=block is not None,
        tcb_status=found.tcb_status,
        advisory_ids=found.advisory_ids,
        evaluation_number=found.evaluation_number,
        gpus=gpus.gpus if gpus is not None else (),
    )


def _gpus(evidence: Evidence, collateral: GpuCollateral, policy: Policy, now: int) -> GpuVerdict | None:
    """None where there is no GPU evidence, or the policy does not ask for its verification.

    Evidence that is withheld while its hash is bound is refused with the other binding faults.
    """
    binding = evidence.binding
    if policy.gpu is None or not evidence.gpu_evidence:
        return None
    nonce = envelope.nonce(binding.signing_key, binding.block_root_hash)
    return verify_gpu(evidence.gpu_evidence, collateral, policy.gpu, now, nonce)


def _binding_faults(evidence: Evidence, report_data: bytes, expected: Expected) -> list[str]:
    binding = evidence.binding
    faults = []
    if report_data != binding.report_data():
        faults.append("REPORTDATA does not bind what the evidence claims; it was altered or belongs to another quote")
    for name in ("network_id", "node", "node_epoch", "signing_key"):
        wanted, found = getattr(expected, name), getattr(binding, name)
        if wanted is not None and wanted != found:
            shown = [each.hex() if isinstance(each, bytes) else str(each) for each in (found, wanted)]
            faults.append(f"evidence is for {name.replace('_', ' ')} {shown[0]}, expected {shown[1]}")
    if gpu_evidence_hash(evidence.gpu_evidence) != binding.gpu_evidence_hash:
        faults.append("the GPU evidence is not the one that REPORTDATA binds")
    return faults


def _block_faults(evidence: Evidence, policy: Policy, now: int, block: Block | None) -> list[str]:
    binding = evidence.binding
    if block is None:
        if not policy.block_required:
            return []
        return [f"the age of the evidence is unknown: masterchain block {binding.block_seqno} was not looked up"]
    if (block.seqno, block.root_hash) != (binding.block_seqno, binding.block_root_hash):
        return [f"the chain has no masterchain block {binding.block_seqno} with the root hash that the evidence binds"]
    age = now - block.time
    if age < -CLOCK_SKEW_SECONDS:
        return [f"masterchain block {block.seqno} is {-age} s in the future; set the clock right"]
    if age > policy.max_age_seconds:
        return [f"stale: masterchain block {block.seqno} is {age} s old, the policy accepts {policy.max_age_seconds} s"]
    return []


def _platform_faults(machine: Machine, policy: Policy) -> Iterator[str]:
    if machine.platform in policy.denied_platforms:
        yield f"platform {machine.platform.hex()} is on the deny-list"
    if policy.allowed_platforms is not None and machine.platform not in policy.allowed_platforms:
        yield f"platform {machine.platform.hex()} is not on the policy's list of platforms"


def _tier(evidence: Evidence, image: AllowedImage | None) -> Tier:
    if evidence.kind is Kind.SIMULATED:
        return Tier.SIMULATED
    if evidence.kind is Kind.SEV_SNP:
        return Tier.COMMITTEE
    # The hash alone proves nothing about a GPU; that the measured worker verified it before binding the hash does.
    if evidence.binding.gpu_evidence_hash != NO_GPU and image is not None and image.verifies_gpu:
        return Tier.GPU
    return Tier.CPU


def _simulated_refusal(policy: Policy) -> str:
    if policy.allow_simulated:
        return "the evidence is simulated, and mainnet refuses simulated evidence whatever the policy says"
    return "the evidence is simulated: it proves no hardware; allow_simulated in the policy accepts it for tests"


def _in_words(error: BaseException) -> str:
    # The library's text has several lines: cause by cause.
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip() and line.strip() != "Caused by:")
    return f"the evidence cannot be verified: {text or type(error).__name__}"
