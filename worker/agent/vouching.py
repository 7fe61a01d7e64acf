"""How an SEV-SNP machine goes live: its evidence before the committee, and the waiting until that has spoken.

Everything that is sent here anyone could send: evidence and collateral are public, and the contract moves only when its
own clock and the chain's blocks say so. A process that restarts goes on with the request that is open.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from pytoniq_core import Cell

from attestation.committee import bundled_policy, claimable
from attestation.evidence import Evidence
from attestation.snp.collateral import AmdCollateral
from attestation.verifier import EvidenceRefused, NotAttested
from chain.api import Chain, Head
from chain.outgoing import Outgoing
from chain.wallet import Wallet
from worker.agent.duty import committee_state
from wrappers.committee import CommitteeState, Request
from wrappers.committee_messages import Ask, conclude, draw, place_of
from wrappers.documents import document_cell

log = logging.getLogger(__name__)

CALL_VALUE_NANO = 200_000_000
"""Above the need of `draw`, of `conclude` without an admission, and of `ask` beside the fees. What is not used comes
back."""
ADMIT_VALUE_NANO = 300_000_000
"""Above the need of `conclude` with an admission. What is not used is the node's gas reserve."""
LATE_BLOCKS = 10
"""A shard knows masterchain blocks a little later than we do."""
LOOK_SECONDS = 15.0


class Next(Enum):
    """What a request waits for."""

    WAIT = "wait"
    DRAW = "draw"
    CONCLUDE = "conclude"


def next_step(request: Request, head: Head) -> Next:
    if head.now > request.deadline:
        return Next.CONCLUDE
    if not request.drawn and head.block.seqno >= request.draw_at + LATE_BLOCKS:
        return Next.DRAW
    return Next.WAIT


def admits(request: Request, state: CommitteeState) -> bool:
    return request.yes >= state.terms.quorum and not request.no


@dataclass(frozen=True, slots=True)
class Vouching:
    chain: Chain
    wallet: Wallet
    committee: bytes
    policy_document: bytes
    index: int | None = None
    """Of the node among the wallet's own; None: another wallet opened it, so this one asks in the place that all but
    the node's owner share."""
    look_seconds: float = LOOK_SECONDS

    @classmethod
    def bundled(cls, chain: Chain, wallet: Wallet, committee: bytes, index: int | None) -> Vouching:
        return cls(chain, wallet, committee, bundled_policy(), index)

    async def vouched(self, evidence: Evidence, collateral: AmdCollateral, consent: bytes | None) -> None:
        """Ask, and see it through: returns when attestation has been told. Takes the committee's windows: hours.

        Raises NotAttested (EvidenceRefused where it was judged), ChainError.
        """
        state = await committee_state(self.chain, self.committee)
        if state.terms.policy != sha256(self.policy_document).digest():
            raise NotAttested("the committee judges by another policy than this release holds; use its release")
        place = place_of(evidence.binding.node, own=self.index is not None)
        open_ = state.requests.get(place)
        if open_ is not None and open_.question.key != evidence.binding.signing_key:
            log.info("an earlier request for this node is open until %d", open_.deadline)
            await self._finish(place)
            open_ = None
        if open_ is None:
            ask = await self._ask(evidence, collateral, consent)
            fees = state.terms.seats * state.terms.fee_nano
            await self._send(ask.to_cell(), CALL_VALUE_NANO + fees)
            state = await committee_state(self.chain, self.committee)
            if place not in state.requests:
                raise NotAttested(
                    f"the committee took no request: {state.size} members for {state.terms.seats} seats, "
                    f"{len(state.requests)} requests open; the money is back, ask again later"
                )
        await self._finish(place)

    async def _ask(self, evidence: Evidence, collateral: AmdCollateral, consent: bytes | None) -> Ask:
        # What members would refuse is not paid for.
        verdict = claimable(evidence, collateral, self.policy_document, (await self.chain.head()).now)
        if not verdict.accepted:
            raise EvidenceRefused(f"no member could say yes to this evidence: {'; '.join(verdict.reasons)}")
        return Ask(
            evidence.binding.node,
            evidence.binding.node_epoch,
            evidence.binding.signing_key,
            verdict.attested_until,
            evidence.binding.block_seqno,
            verdict.measurement,
            verdict.platform,
            document_cell(evidence.to_json().encode()),
            document_cell(collateral.to_json().encode()),
            consent,
            self.index or 0,
        )

    async def _finish(self, place: bytes) -> None:
        """Until the request there is concluded. Raises EvidenceRefused when it admits nothing."""
        while True:
            state = await committee_state(self.chain, self.committee)
            request = state.requests.get(place)
            if request is None:
                return  # somebody else concluded it: what the node shows tells how
            step = next_step(request, await self.chain.head())
            if step is Next.DRAW:
                await self._send(draw(place), CALL_VALUE_NANO)
            elif step is Next.CONCLUDE:
                admitted = admits(request, state)
                await self._send(conclude(place), ADMIT_VALUE_NANO if admitted else CALL_VALUE_NANO)
                if not admitted:
                    raise EvidenceRefused(
                        f"the committee did not vouch: {request.yes} yes, {request.no} no, {len(request.seats)} drawn, "
                        f"{state.terms.quorum} are needed; what its members said stands in their agents' logs"
                    )
                return
            await asyncio.sleep(self.look_seconds)

    async def _send(self, body: Cell, value_nano: int) -> None:
        sent = await self.wallet.send(self.chain, [Outgoing(self.committee, value_nano, body)])
        await sent.landed(self.chain)
