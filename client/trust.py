"""Whom a client seals to: a node's offer against the raw quote, the client's own policy, and the chain. Pure.

The quote alone proves a key. What the chain says, agreed on by two endpoints, can only narrow that: another key, an
ended term, unbonding or another measurement there refuses the node; nothing there can admit one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attestation.policy import MAINNET_GLOBAL_ID, Policy
from attestation.presented import Presented
from attestation.strict import Malformed as MalformedEvidence
from attestation.verify import Block, Expected, Verdict, verify
from protocol.errors import PeerFault
from protocol.offer import AnnouncedKey, ModelOffer, NodeOffer
from protocol.pricing import dearer
from wrappers.node import NodeState
from wrappers.receipts import Terms


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What the client is configured with, never told by anybody."""

    global_id: int
    network_id: bytes
    registry: bytes


@dataclass(frozen=True, slots=True)
class TrustedNode:
    """A node that passed. `account` is its account, `node_id` the id of this life of it."""

    account: bytes
    epoch: int
    node_id: bytes
    signing_key: bytes
    sealing_key: AnnouncedKey = field(repr=False)
    models: tuple[ModelOffer, ...]
    verdict: Verdict
    release_key: bytes
    attested_until: int
    """Unix seconds: the earlier end of the evidence and of the chain's verdict."""
    evidence: str = field(repr=False)
    """The offer's evidence and collateral as JSON, for checking receipts offline."""
    published: Mapping[bytes, Terms] = field(default_factory=dict)
    """Prices that the node's controller put on chain, by model: what it asks is not above them, else it is refused."""

    @property
    def simulated(self) -> bool:
        return self.verdict.simulated

    def model(self, name: str) -> ModelOffer | None:
        return next((one for one in self.models if one.name == name), None)


@dataclass(frozen=True, slots=True)
class RefusedNode:
    """A node that did not pass, and every reason that was found."""

    account: bytes
    reasons: tuple[str, ...]


def effective(policy: Policy, *, allow_simulated: bool) -> Policy:
    """Simulated evidence needs both: a policy that knows it and the client's own flag."""
    return replace(policy, allow_simulated=policy.allow_simulated and allow_simulated)


def check_offer(
    offer: NodeOffer,
    *,
    account: bytes,
    network: NetworkFacts,
    policy: Policy,
    allow_simulated: bool,
    node: NodeState,
    standing: tuple[str, ...],
    block: Block | None,
    now: int,
    chain_now: int,
) -> TrustedNode | RefusedNode:
    """Judge the offer of the node at `account`.

    `node`: its state on chain, agreed on by a quorum and genuine. `standing`: what the verifier on chain holds against
    its image and platform, which refuses it at once, before the node itself was told. `block`: the masterchain block
    that the evidence binds, where the policy asks for it. `now`: this machine's clock; `chain_now`: the newest block's.
    """
    reasons = [*_identity_faults(offer, account, network, node), *_chain_faults(offer, node, max(now, chain_now))]
    reasons += (f"{fault} (so the chain says today)" for fault in standing)
    try:
        presented = Presented.from_document(offer.evidence)
    except MalformedEvidence as error:
        return RefusedNode(account, (*reasons, str(error)))
    verdict = verify(
        presented.evidence,
        presented.collateral,
        effective(policy, allow_simulated=allow_simulated),
        max(now, chain_now),  # a clock of ours that was set back must not make old evidence young
        expected=Expected(network.global_id, network.network_id, account, node.epoch, node.signing_key),
        block=block,
        gpu_collateral=presented.gpu,
    )
    if not verdict.accepted:
        return RefusedNode(account, (*reasons, *(_with_flag(reason, policy, network) for reason in verdict.reasons)))
    reasons += _verdict_faults(offer, verdict, node, network)
    if reasons:
        # Before the sealing keys: they are signed by a key that did not pass.
        return RefusedNode(account, tuple(reasons))
    try:
        sealing = offer.sealing_key(now)
    except PeerFault as error:
        return RefusedNode(account, (f"{error.cause}; {error.cure}",))
    return TrustedNode(
        account=account,
        epoch=offer.node_epoch,
        node_id=offer.node_id,
        signing_key=verdict.signing_key,
        sealing_key=sealing,
        models=offer.models,
        verdict=verdict,
        release_key=node.release_key,
        attested_until=min(verdict.attested_until, node.attested_until),
        evidence=json.dumps(dict(offer.evidence), sort_keys=True),
        published=node.offers,
    )


def _identity_faults(offer: NodeOffer, account: bytes, network: NetworkFacts, node: NodeState) -> list[str]:
    faults = []
    if offer.network != network.network_id or not node.belongs_to(network.network_id, account):
        faults.append("the offer or the node is of another network")
    if node.registry != network.registry:
        faults.append("the node is of another registry")
    if offer.node != account:
        faults.append(f"the offer is for node {offer.node.hex()}")
    if (offer.node_epoch, offer.node_id) != (node.epoch, node.node_id):
        faults.append(f"the offer is for epoch {offer.node_epoch} of the node, the chain shows {node.epoch}")
    return faults


def _chain_faults(offer: NodeOffer, node: NodeState, now: int) -> list[str]:
    if node.signing_key is None:
        return ["the chain shows no attested key for the node"]
    faults = []
    if node.signing_key != offer.signing_key:
        faults.append(f"the chain shows key {node.signing_key.hex()}, the offer has {offer.signing_key.hex()}")
    if node.unbond_at:
        faults.append(f"the node is unbonding since {node.unbond_at}")
    if node.draining:
        faults.append("its operator drains it: it takes no new requests")
    for model in offer.models:
        published = node.offers.get(model.terms.model)
        if published is not None and dearer(model.terms, published):
            faults.append(f"it asks more for {model.name} than the price that it published on chain")
    if node.attested_until <= now:
        faults.append(f"the node's term on chain ended at {node.attested_until}, now is {now}")
    return faults


def _verdict_faults(offer: NodeOffer, verdict: Verdict, node: NodeState, network: NetworkFacts) -> list[str]:
    faults = []
    if verdict.signing_key != offer.signing_key:
        faults.append("the evidence proves another key than the offer's")
    if verdict.simulated and network.global_id == MAINNET_GLOBAL_ID:
        faults.append("the evidence is simulated, and mainnet refuses it whatever the policy says")
    for name in ("measurement", "platform"):
        on_chain = getattr(node, name)
        if on_chain is not None and on_chain != getattr(verdict, name):
            faults.append(f"the chain was shown another {name} than this evidence has")
    if node.tier != verdict.tier:
        faults.append(f"the chain shows tier {node.tier}, the evidence earns {int(verdict.tier)}")
    return faults


def _with_flag(reason: str, policy: Policy, network: NetworkFacts) -> str:
    if "simulated" in reason and policy.allow_simulated and network.global_id != MAINNET_GLOBAL_ID:
        return "the evidence is SIMULATED: it proves no hardware; only --allow-simulated accepts it, for tests"
    return reason
