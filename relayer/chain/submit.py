"""Sends open claims until the chain shows them landed or dead. Sending is never proof of anything."""

from __future__ import annotations

import time
from collections.abc import Callable

from chain.api import Chain, ChainError
from relayer.core.effects import SubmitClaim
from relayer.core.facts import ClaimSubmitted
from relayer.log import log
from relayer.store.writer import Writer
from wrappers.cells import from_boc

RESEND_SECONDS = 5.0


class Submitter:
    """The same bytes again and again: the node's seqno lets them in once, so resending can never pay twice."""

    def __init__(self, chain: Chain, writer: Writer, clock: Callable[[], int]) -> None:
        self._chain = chain
        self._writer = writer
        self._clock = clock
        self._sent: dict[bytes, float] = {}

    async def run_once(self) -> None:
        """Sends what is due. A refusal is a hint: only expiry, seen on chain, closes the effect."""
        pending = await self._writer.read(lambda store: store.pending())
        claims = [effect for effect in pending if isinstance(effect, SubmitClaim)]
        open_hashes = {claim.message_hash for claim in claims}
        self._sent = {hash_: at for hash_, at in self._sent.items() if hash_ in open_hashes}
        for claim in claims:
            if time.monotonic() - self._sent.get(claim.message_hash, float("-inf")) < RESEND_SECONDS:
                continue
            if self._clock() > claim.valid_until:
                continue  # it cannot land any more; the scanner waits for the chain to say so
            self._sent[claim.message_hash] = time.monotonic()
            await self._send(claim)

    async def _send(self, claim: SubmitClaim) -> None:
        try:
            await self._chain.send(from_boc(claim.message))
        except ChainError as error:
            log("claim not taken", node=claim.node, seqno=claim.seqno, message=claim.message_hash, reason=str(error))
            return
        log("claim sent", node=claim.node, seqno=claim.seqno, message=claim.message_hash)
        await self._writer.record(ClaimSubmitted(claim.node, claim.seqno, claim.message_hash, self._clock()))
