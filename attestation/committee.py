"""A committee member's judgement on one question: a pure function of what the question names, so that members agree.

Nothing else enters it: not the verifier's clock, nor what it finds on the network today. Whoever repeats it later gets
the same answer, and a member that signs two answers to one question has lied (docs/adr/0026-committee.md).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import resources

from pytoniq_core import Cell

from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence, Kind
from attestation.policy import MAINNET_GLOBAL_ID, AllowedImage, Policy, Technology, Tier, from_document
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import parse as parse_report
from attestation.verify import Block, Expected, Verdict, verify
from wrappers.committee import Question
from wrappers.documents import document_bytes


class NotAnswerable(ValueError):
    """This member cannot judge: it was not given what the question names. It signs nothing, neither yes nor no."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """`reasons`: one sentence for each thing that is wrong; empty when accepted."""

    accepted: bool
    reasons: tuple[str, ...] = ()


def bundled_policy() -> bytes:
    """The policy document of this release, which a measured worker cannot be told to change."""
    return resources.files("attestation").joinpath("policies", "committee.toml").read_bytes()


def judge(question: Question, evidence: Cell, collateral: Cell, policy_document: bytes) -> Opinion:
    """Whether the evidence proves what the question says, at the question's own time.

    `evidence`, `collateral`: the cells of `ask`. Raises NotAnswerable when one of the three is not the named one.
    """
    named = (
        ("evidence", question.evidence, bytes(evidence.hash)),
        ("collateral", question.collateral, bytes(collateral.hash)),
        ("policy", question.policy, sha256(policy_document).digest()),
    )
    for what, wanted, given in named:
        if wanted != given:
            raise NotAnswerable(
                f"the {what} is {given.hex()}, the question names {wanted.hex()}; take it from the request itself, and "
                "a release with the committee's policy"
            )
    try:
        shown = Evidence.from_json(document_bytes(evidence))
        amd = parse_collateral(document_bytes(collateral))
    except (ValueError, RecursionError) as error:
        return Opinion(False, (str(error),))
    # Not left to the policy: what the chain can verify itself goes there, and the test root proves nothing (G14).
    if shown.kind is not Kind.SEV_SNP or not isinstance(amd, AmdCollateral):
        return Opinion(False, (f"evidence of kind {shown.kind.value}: a committee judges sev-snp alone",))
    return _judge(question, shown, amd, _policy(policy_document, question.measurement))


def claimable(evidence: Evidence, collateral: AmdCollateral, policy_document: bytes, now: int) -> Verdict:
    """What could be asked about this evidence now, for who asks: never raises, a rejection has its reasons."""
    try:
        image = parse_report(evidence.quote).measurement
    except ValueError as error:
        return Verdict(False, (str(error),))
    binding = evidence.binding
    expected = Expected(MAINNET_GLOBAL_ID, binding.network_id, binding.node, binding.node_epoch, binding.signing_key)
    block = Block(binding.block_seqno, binding.block_root_hash, now)
    return verify(evidence, collateral, _policy(policy_document, image), now, expected=expected, block=block)


def _policy(document: bytes, measurement: bytes) -> Policy:
    # Which images may serve is the chain's to say, when it takes the committee's word. Here only that it is this one,
    # launched with nothing beside it: HOST_DATA and the keys of an ID block stay empty.
    policy = from_document(tomllib.loads(document.decode()), "committee's policy")
    image = AllowedImage("the image of the question", measurement, Technology.SEV_SNP)
    return replace(policy, images=(image,), tiers=frozenset({Tier.COMMITTEE}), allow_simulated=False)


def _judge(question: Question, evidence: Evidence, collateral: AmdCollateral, policy: Policy) -> Opinion:
    expected = Expected(MAINNET_GLOBAL_ID, question.network, question.node, question.epoch, question.key)
    # The contract has seen the block among the newest sixteen hundredths, which bounds its age; its own time is not in
    # the question, so all count from the moment of asking.
    block = Block(question.block_seqno, question.block_root_hash, question.asked_at)
    verdict = verify(evidence, collateral, policy, question.asked_at, expected=expected, block=block)
    if not verdict.accepted:
        return Opinion(False, verdict.reasons)
    reasons = []
    if verdict.platform != question.platform:
        reasons.append(f"the platform is {verdict.platform.hex()}, the question says {question.platform.hex()}")
    if verdict.attested_until < question.attested_until:
        reasons.append(
            f"the evidence holds until {verdict.attested_until}, the question says until {question.attested_until}"
        )
    return Opinion(not reasons, tuple(reasons))
