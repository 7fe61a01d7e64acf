"""The governor's decision to admit a key, until the on-chain verifier takes it over.

Pure: whoever holds the governor's wallet sends what is decided here. On mainnet nothing is admitted by message, real
evidence included; the contracts refuse it there as well (G14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.collateral import AnyCollateral
from attestation.evidence import Evidence
from attestation.gpu.collateral import GpuCollateral
from attestation.policy import MAINNET_GLOBAL_ID, Policy
from attestation.verify import Block, Expected, verify


@dataclass(frozen=True, slots=True)
class Admission:
    """The fields of the on-chain verdict. `node` is an account id, `attested_until` unix seconds."""

    node: bytes
    node_epoch: int
    signing_key: bytes
    measurement: bytes
    platform: bytes
    tier: int
    attested_until: int
    block_seqno: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, one sentence each."""

    reasons: tuple[str, ...]


def admit(
    evidence: Evidence,
    collateral: AnyCollateral,
    policy: Policy,
    now: int,
    *,
    expected: Expected,
    block: Block | None,
    last_block_seqno: int = 0,
    platforms: Mapping[bytes, bytes] | None = None,
    gpu_collateral: GpuCollateral | None = None,
) -> Admission | Refusal:
    """Decide at `now` (unix seconds). `last_block_seqno` is the node's own; `platforms` maps platform -> live node."""
    if expected.global_id == MAINNET_GLOBAL_ID:
        return Refusal(("mainnet admits by on-chain verification only, never by the governor's message",))
    if block is None:
        return Refusal((f"masterchain block {evidence.binding.block_seqno} was not found; bind a recent block",))
    verdict = verify(evidence, collateral, policy, now, expected=expected, block=block, gpu_collateral=gpu_collateral)
    if not verdict.accepted:
        return Refusal(verdict.reasons)
    if verdict.block_seqno <= last_block_seqno:
        return Refusal(
            (f"block {verdict.block_seqno} is not newer than the node's last, {last_block_seqno}; quote again",)
        )
    holder = (platforms or {}).get(verdict.platform)
    if holder is not None and holder != expected.node:
        return Refusal(
            (f"platform {verdict.platform.hex()} already runs node {holder.hex()}; one live node per platform",)
        )
    return Admission(
        node=expected.node,
        node_epoch=expected.node_epoch,
        signing_key=verdict.signing_key,
        measurement=verdict.measurement,
        platform=verdict.platform,
        tier=int(verdict.tier),
        attested_until=verdict.attested_until,
        block_seqno=verdict.block_seqno,
    )
