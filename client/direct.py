"""The way to the network that the settings name: a relayer, or one node over RA-TLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from attestation.collateral import AnyCollateral
from attestation.evidence import Evidence
from attestation.ratls import Judge
from attestation.tls import client_context
from attestation.verify import Expected, Verdict, verify
from client.relayer_link import RelayerLink
from client.settings import Settings
from client.trust import effective


def link_of(settings: Settings) -> RelayerLink:
    if settings.direct is None:
        return RelayerLink(settings.relayer_url)
    return RelayerLink(f"https://{settings.direct}", context=client_context(judge_of(settings)))


def judge_of(settings: Settings, clock: Callable[[], float] = time.time) -> Judge:
    """Whether an attested machine of this network answers, under the client's own policy.

    Which node it may be, and how fresh its evidence is, the chain has to say: that is asked when its offer is judged,
    before anything is sealed. Here the block is not looked up, since a handshake cannot wait for a chain. The GPUs' raw
    evidence is judged there as well: NVIDIA's manifests travel with the offer, not in a certificate.
    """
    full = effective(settings.policy, allow_simulated=settings.allow_simulated)
    policy = replace(full, block_required=False, gpu=None)
    facts = settings.facts

    def judge(evidence: Evidence, collateral: AnyCollateral) -> Verdict:
        bound = evidence.binding
        expected = Expected(facts.global_id, facts.network_id, bound.node, bound.node_epoch)
        return verify(evidence, collateral, policy, int(clock()), expected=expected)

    return judge
