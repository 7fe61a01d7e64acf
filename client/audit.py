"""Checking receipts again, later and offline: from the client's copy and public data alone (G13). Pure.

Needed are the receipt with its opened inner part, what the client promised, the ids it is bound to, and the evidence
that proved the signing key. Any changed byte breaks at least one check.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from attestation.policy import Policy
from attestation.presented import Presented
from attestation.verify import Expected, verify
from client.records import AccountOf, Held, StoredEvidence
from client.trust import NetworkFacts, effective
from protocol.commitments import ResponseCommitment, inner_salt, request_commitment
from protocol.errors import PeerFault
from protocol.receipts import Expectation, IssuedReceipt, check_issued
from wrappers.receipts import Terms
from wrappers.signed import allotment_id, node_id


@dataclass(frozen=True, slots=True)
class Check:
    """One statement that holds or not. `said` tells what was found, for people."""

    name: str
    holds: bool
    said: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """What was asked and answered, where the client kept it. `answer` None: it never came whole."""

    secret: bytes
    body: bytes
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Audit:
    hash: bytes
    checks: tuple[Check, ...]
    simulated: bool = False

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def verify_receipt(
    issued: IssuedReceipt,
    *,
    of: AccountOf,
    network: NetworkFacts,
    terms: Terms,
    maximum_nano: int,
    request: bytes,
    evidence: StoredEvidence | None,
    policy: Policy,
    allow_simulated: bool,
    texts: Texts | None = None,
) -> Audit:
    """Every check of one receipt, save for its place among the others (`verify_chain`). Never raises.

    `of` names escrow, allotment epoch, node and key; `request` is the commitment that the client made when it sealed;
    `evidence` what it verified before it sealed, judged again under `policy` at that time.
    """
    receipt = issued.signed.receipt
    life = node_id(network.network_id, of.node, of.node_epoch)
    birth = allotment_id(network.network_id, of.escrow, of.epoch, of.node)
    checks = [Check("bound to network, escrow, allotment and node", (receipt.allotment, receipt.node) == (birth, life))]
    expected = Expectation(birth, life, of.key, terms, maximum_nano, issued.inner.salt, request)
    try:
        check_issued(issued, expected)
        said = f"{receipt.amount_nano} nanoTON"
        checks.append(Check("signed by the enclave key, amount is usage x terms, within the maximum", True, said))
    except PeerFault as error:
        checks.append(
            Check("signed by the enclave key, amount is usage x terms, within the maximum", False, error.cause)
        )
    if texts is not None:
        checks += _text_checks(issued, texts)
    proof, simulated = _key_check(of, network, evidence, policy, allow_simulated)
    return Audit(receipt.hash, (*checks, proof), simulated)


def _text_checks(issued: IssuedReceipt, texts: Texts) -> Iterable[Check]:
    inner = issued.inner
    yield Check("opened by the request's own secret", inner.salt == inner_salt(texts.secret))
    asked = request_commitment(texts.secret, issued.request_id, texts.body)
    yield Check("commits to the request as it was sealed", inner.request == asked)
    if texts.answer is not None:
        answered = ResponseCommitment(texts.secret)
        answered.update(texts.answer)
        yield Check("commits to the answer as it was received", inner.response == answered.digest())


def _key_check(
    of: AccountOf, network: NetworkFacts, evidence: StoredEvidence | None, policy: Policy, allow_simulated: bool
) -> tuple[Check, bool]:
    name = "the key was born in attested hardware"
    if evidence is None:
        return Check(name, False, "no evidence was kept for it"), False
    try:
        presented = Presented.from_document(json.loads(evidence.document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Check(name, False, f"the kept evidence is damaged: {error}"), False
    verdict = verify(
        presented.evidence,
        presented.collateral,
        # The block was looked up when it was new; a later reader has no chain at hand.
        replace(effective(policy, allow_simulated=allow_simulated), block_required=False),
        evidence.verified_at,
        expected=Expected(network.global_id, network.network_id, of.node, of.node_epoch, of.key),
        gpu_collateral=presented.gpu,
    )
    if not verdict.accepted:
        return Check(name, False, "; ".join(verdict.reasons)), False
    said = f"SIMULATED, proves no hardware ({verdict.image_name})" if verdict.simulated else verdict.image_name
    return Check(name, True, f"{said}, measurement {verdict.measurement.hex()[:16]}"), verdict.simulated


def verify_chain(receipts: Sequence[IssuedReceipt]) -> Check:
    """Receipts of one account, in order of seq: no gaps, each naming the one before, totals adding up."""
    name = "follows the receipts before it without a gap"
    previous, total = bytes(32), 0
    for seq, issued in enumerate(receipts, 1):
        receipt = issued.signed.receipt
        total += receipt.amount_nano
        if (receipt.seq, receipt.previous, receipt.cumulative_nano) != (seq, previous, total):
            return Check(name, False, f"breaks at number {seq}: it is missing, or not the one that was signed there")
        previous = receipt.hash
    return Check(name, True, f"{len(receipts)} receipts, {total} nanoTON")


def verify_held(
    held: Held,
    *,
    of: AccountOf,
    network: NetworkFacts,
    evidence: StoredEvidence | None,
    policy: Policy,
    allow_simulated: bool,
) -> Audit:
    """`verify_receipt` of a receipt as the store gives it."""
    texts = None
    if held.secret is not None and held.body is not None:
        texts = Texts(held.secret, held.body, held.answer)
    return verify_receipt(
        held.issued,
        of=of,
        network=network,
        terms=held.terms,
        maximum_nano=held.maximum_nano,
        request=held.request,
        evidence=evidence,
        policy=policy,
        allow_simulated=allow_simulated,
        texts=texts,
    )
