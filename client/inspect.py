"""One node judged for whoever asks, without an account: nothing is stored, nothing is sealed, no wallet is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from attestation.keeper import collateral_ends
from chain.api import Chain
from chain.config import connect
from client.chain_view import ChainView
from client.direct import link_of
from client.directory import judged
from client.errors import NoNode, RelayerRefused, Untrusted
from client.relayer_link import RelayerLink
from client.settings import Settings
from client.trust import RefusedNode, TrustedNode


@dataclass(frozen=True, slots=True)
class Inspection:
    """`collateral_ends`: what the chain judges by, and until when (unix seconds)."""

    node: TrustedNode
    verifier: bytes
    chain_simulated: bool
    collateral_ends: Mapping[str, int]


async def inspect(
    settings: Settings, account: bytes, *, chain: Chain | None = None, link: RelayerLink | None = None
) -> Inspection:
    """Raises Untrusted with every reason, NoNode, Uncertain, RelayerUnreachable."""
    own_chain = connect(settings.network) if chain is None else None
    relayer = link or link_of(settings)
    try:
        view = ChainView(chain or own_chain or connect(settings.network), settings.facts)
        try:
            offer = await relayer.offer(account)
        except RelayerRefused as error:
            raise NoNode(error.cause, error.cure) from error
        if offer is None:
            raise NoNode(f"node {account.hex()} has no offer at this relayer", "wait for it, or use another relayer")
        found = await judged(
            offer,
            account,
            view=view,
            network=settings.facts,
            policy=settings.policy,
            allow_simulated=settings.allow_simulated,
            now=int(time.time()),
        )
        if isinstance(found, RefusedNode):
            raise Untrusted(account, found.reasons)
        verifier = (await view.node(account)).attestation
        state = await view.verifier(verifier)
        return Inspection(found, verifier, state.simulated, collateral_ends(state))
    finally:
        if link is None:
            await relayer.close()
        if own_chain is not None:
            await own_chain.close()
