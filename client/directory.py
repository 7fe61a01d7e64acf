"""Nodes that a relayer lists, each judged by the client itself, and remembered for a short while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from attestation.policy import Policy
from attestation.presented import Presented
from attestation.strict import Malformed as MalformedEvidence
from client.chain_view import ChainView
from client.errors import NoNode, RelayerRefused, Uncertain, Untrusted
from client.records import StoredEvidence
from client.relayer_link import RelayerLink
from client.store import Store
from client.trust import NetworkFacts, RefusedNode, TrustedNode, check_offer
from protocol.errors import Malformed
from protocol.offer import NodeOffer

TRUST_SECONDS = 60
"""A revocation on chain reaches this client within it."""
SEALING_MARGIN_SECONDS = 60
JUDGED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Judged:
    node: TrustedNode | RefusedNode
    offer: str
    at: float


class Directory:
    """Judges offers. Raises RelayerUnreachable, RelayerRefused, Uncertain."""

    def __init__(
        self,
        link: RelayerLink,
        view: ChainView,
        store: Store,
        network: NetworkFacts,
        policy: Policy,
        *,
        allow_simulated: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._view = view
        self._store = store
        self._network = network
        self._policy = policy
        self._allow_simulated = allow_simulated
        self._clock = clock
        self._judged: dict[bytes, Judged] = {}

    def forget(self, account: bytes | None = None) -> None:
        """Look again next time: something about this node (or all) was out of date."""
        if account is None:
            self._judged.clear()
        else:
            self._judged.pop(account, None)

    async def all(self) -> list[TrustedNode | RefusedNode]:
        """Every listed node, trusted or with the reasons why not. Raises Uncertain when none could be judged."""
        together = asyncio.Semaphore(JUDGED_AT_ONCE)
        doubts: list[Uncertain] = []

        async def one(account: bytes, offer: str) -> TrustedNode | RefusedNode:
            async with together:
                try:
                    return await self._judge(account, offer)
                except Uncertain as error:
                    # An offer may name a block that no endpoint keeps: its doubt is its own.
                    doubts.append(error)
                    return RefusedNode(account, (str(error),))

        judged_ = list(await asyncio.gather(*(one(*listed) for listed in await self._link.offers())))
        if doubts and len(doubts) == len(judged_):
            raise doubts[0]
        return judged_

    async def node(self, account: bytes) -> TrustedNode:
        """Raises Untrusted, NoNode."""
        judged = self._judged.get(account)
        if judged is not None and isinstance(judged.node, TrustedNode) and self._fresh(judged, judged.node):
            return judged.node
        try:
            offer = await self._link.offer(account)
        except RelayerRefused as error:
            raise NoNode(error.cause, error.cure) from error
        if offer is None:
            raise NoNode(f"node {account.hex()} has no offer at this relayer", "wait for it, or use another relayer")
        node = await self._judge(account, offer)
        if isinstance(node, RefusedNode):
            raise Untrusted(account, node.reasons)
        return node

    def _fresh(self, judged: Judged, node: TrustedNode) -> bool:
        now = self._clock()
        ends = min(node.attested_until, node.sealing_key.expires_at - SEALING_MARGIN_SECONDS)
        return judged.at <= now < min(judged.at + TRUST_SECONDS, ends)

    async def _judge(self, account: bytes, text: str) -> TrustedNode | RefusedNode:
        node = await self._check(account, text)
        if isinstance(node, TrustedNode):
            self._judged[account] = Judged(node, text, self._clock())
            self._store.put_evidence(
                StoredEvidence(node.signing_key, account, node.epoch, node.evidence, int(self._clock()))
            )
        else:
            self.forget(account)
        return node

    async def _check(self, account: bytes, text: str) -> TrustedNode | RefusedNode:
        fault = self._store.fault(account)
        if fault is not None:
            return RefusedNode(account, (f"it broke the rules before: {fault}",))
        return await judged(
            text,
            account,
            view=self._view,
            network=self._network,
            policy=self._policy,
            allow_simulated=self._allow_simulated,
            now=int(self._clock()),
        )


async def judged(
    text: str,
    account: bytes,
    *,
    view: ChainView,
    network: NetworkFacts,
    policy: Policy,
    allow_simulated: bool,
    now: int,
) -> TrustedNode | RefusedNode:
    """The offer `text` of the node at `account` against policy and chain. Raises Uncertain."""
    try:
        offer = NodeOffer.from_json(text)
        evidence = Presented.from_document(offer.evidence).evidence
    except (Malformed, MalformedEvidence) as error:
        return RefusedNode(account, (str(error),))
    try:
        state = await view.node(account)
    except Untrusted as error:
        return RefusedNode(account, error.reasons)
    return check_offer(
        offer,
        account=account,
        network=network,
        policy=policy,
        allow_simulated=allow_simulated,
        node=state,
        standing=await view.standing(account, state, evidence),
        block=await view.block(evidence.binding.block_seqno) if policy.block_required else None,
        now=now,
        chain_now=(await view.head()).now,
    )
