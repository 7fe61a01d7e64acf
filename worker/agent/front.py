"""What relayers see of the agent (`relayer_link.Agent`): its offer, answers, claims, releases and receipts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from chain.api import ChainError
from protocol.errors import Code
from protocol.frames import HEADER_BYTES
from protocol.link import LinkCode
from protocol.link_messages import OutgoingClaim, ReceiptFrame, ReleaseRequest
from protocol.offer import AnnouncedKey, ModelOffer, NodeOffer
from worker.agent.claims import Claims, NoEnclave, NothingToClaim, SignedClaim
from worker.agent.desk import Desk
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.journal import Journal
from worker.agent.questions import Refusal
from worker.agent.releases import Releases
from worker.agent.store import KeptReceipt, Store, StoreError
from worker.agent.streams import Answering, Sink
from worker.agent.view import ChainView, NodeMissing
from wrappers.cells import from_boc
from wrappers.receipts import Terms

log = logging.getLogger(__name__)


class Front:
    """`offer`: what is offered now, None while there is nothing."""

    def __init__(
        self,
        offer: Callable[[], dict[str, Any] | None],
        desk: Desk,
        journal: Journal,
        claims: Claims,
        releases: Releases,
    ) -> None:
        self.offer = offer
        self._desk = desk
        self._journal = journal
        self._claims = claims
        self._releases = releases

    async def answer(self, sealed: bytes, sink: Sink) -> Answering | None:
        return await self._desk.answer(sealed, sink)

    async def claim(self) -> OutgoingClaim:
        try:
            # The gas is the node's: no relayer may have it spent on next to nothing.
            claim = await self._claims.batch(self._claims.policy.receipt_claim_nano)
        except NothingToClaim as error:
            raise Refusal(LinkCode.NOTHING_TO_CLAIM, "nothing is owed that a claim brings now", "ask later") from error
        except (NoEnclave, EnclaveGone) as error:
            raise Refusal(LinkCode.NO_ENCLAVE, "no enclave runs that could sign", "ask later") from error
        except EnclaveRefused as error:
            raise Refusal(LinkCode.NOT_SIGNED, str(error), "ask later") from error
        except (ChainError, NodeMissing) as error:
            raise Refusal(Code.CHAIN_UNCERTAIN, str(error), "ask again in a few seconds") from error
        except StoreError as error:
            raise Refusal(Code.INTERNAL, "the node's receipt store takes nothing now", "ask later") from error
        return outgoing(claim)

    async def release(self, ask: ReleaseRequest) -> tuple[int, bytes]:
        return await self._releases.sign(ask)

    async def receipts(self, allotment: bytes, key: bytes, after_seq: int, limit: int) -> Sequence[ReceiptFrame]:
        kept = await self._journal.read(lambda store: store.receipts_after(key, allotment, after_seq, limit))
        return tuple(_receipt_frame(key, one) for one in kept)

    async def newest_receipts(self) -> Sequence[ReceiptFrame]:
        def read(store: Store) -> tuple[ReceiptFrame, ...]:
            return tuple(
                _receipt_frame(one.key, kept)
                for one in store.accounts()
                for kept in store.receipts_after(one.key, one.allotment, one.seq - 1, 1)
            )

        try:
            return await self._journal.read(read)
        except StoreError as error:
            # The link is worth more than this: what is owed is claimed without the relayer too.
            log.error("relayers hear of no receipts: %s", error)
            return ()


def offer_of(view: ChainView, enclave: Enclave, node_epoch: int, evidence: bytes) -> dict[str, Any]:
    """The NodeOffer as JSON. `evidence`: as the chain verified it."""
    ready = enclave.ready
    offer = NodeOffer(
        network=view.network,
        node=view.account,
        node_epoch=node_epoch,
        signing_key=ready.signing_key,
        evidence=json.loads(evidence),
        sealing_keys=tuple(AnnouncedKey(key.public_key, key.expires_at, key.signature) for key in enclave.sealing),
        models=tuple(
            ModelOffer(model.name, model.context_tokens, Terms.from_cell(from_boc(model.terms)))
            for model in ready.models
        ),
    )
    document: dict[str, Any] = json.loads(offer.to_json())
    return document


def outgoing(claim: SignedClaim) -> OutgoingClaim:
    return OutgoingClaim(claim.message, claim.seqno, claim.valid_until, claim.entries)


def _receipt_frame(key: bytes, kept: KeptReceipt) -> ReceiptFrame:
    return ReceiptFrame(kept.escrow, kept.allotment_epoch, key, kept.frame[HEADER_BYTES:])
