"""Accounting between one client and one enclave key, as both sides keep it.

One account per (escrow, allotment epoch, node, enclave key); all counters start at 0 in it. The client's cap is
what it has accepted plus what the requests without an accepted receipt may still cost, never a round lump; the
enclave serves while the caps that it holds cover what it billed plus the maxima in flight. Receipts form one chain
without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Self

from protocol.errors import Code, Equivocation, OurFault, ReceiptFault
from protocol.frames import MAX_MISSED, Refusal
from protocol.receipts import Expectation, IssuedReceipt, check_issued
from wrappers.receipts import Terms, Voucher
from wrappers.signed import MAX_AMOUNT_NANO

NO_RECEIPT = bytes(32)
MAX_REQUEST_SECONDS = 3600
"""An enclave ends every request within this time, so a promise older than its sealing key plus this never runs."""
MAX_UNACKED = MAX_MISSED


@unique
class Standing(Enum):
    """One request as the client counts it."""

    PROMISED = "promised"
    """Counted with its maximum: the enclave may have run it."""
    EXPIRED = "expired"
    """Can no longer be opened. Not counted, but a receipt from before is still accepted."""
    HELD = "held"
    """Its receipt is here, an earlier one is not: counted with its amount."""
    SETTLED = "settled"
    """Its receipt joined the chain: part of acked."""
    REFUSED = "refused"
    """The enclave said, under seal, that it will never run."""


@unique
class Step(Enum):
    RECEIPT = "receipt"
    CHAIN = "chain"
    EXPIRE = "expire"
    REFUSE = "refuse"


_NEXT: dict[tuple[Standing, Step], Standing] = {
    (Standing.PROMISED, Step.RECEIPT): Standing.HELD,
    (Standing.PROMISED, Step.EXPIRE): Standing.EXPIRED,
    (Standing.PROMISED, Step.REFUSE): Standing.REFUSED,
    (Standing.EXPIRED, Step.RECEIPT): Standing.HELD,
    (Standing.EXPIRED, Step.REFUSE): Standing.REFUSED,
    (Standing.HELD, Step.CHAIN): Standing.SETTLED,
}


@dataclass(frozen=True, slots=True)
class Promise:
    """One request without an accepted receipt."""

    request_id: bytes
    maximum_nano: int
    terms: Terms
    salt: bytes
    """`commitments.inner_salt` of its secret."""
    request: bytes
    """`commitments.request_commitment` of it."""
    expires_at: int
    """End of the sealing key that it is sealed to, unix seconds."""
    standing: Standing = Standing.PROMISED
    receipt: IssuedReceipt | None = None
    """While HELD."""

    @property
    def counted_nano(self) -> int:
        if self.standing is Standing.HELD and self.receipt is not None:
            return self.receipt.signed.receipt.amount_nano
        return self.maximum_nano if self.standing is Standing.PROMISED else 0

    def step(self, step: Step) -> Self:
        following = _NEXT.get((self.standing, step))
        if following is None:
            raise OurFault(f"a {self.standing.value} request takes no {step.value}", "follow the table of standings")
        return replace(self, standing=following)


@dataclass(frozen=True, slots=True)
class ClientAccount:
    """The client's side. Store it before the voucher leaves: a forgotten promise is a cap that is too low."""

    allotment: bytes
    node: bytes
    """Node id."""
    key: bytes
    """The enclave's signing key."""
    seq: int = 0
    previous: bytes = NO_RECEIPT
    acked_nano: int = 0
    promises: tuple[Promise, ...] = ()
    """In the order they were made; settled and refused ones are gone."""

    @property
    def cap_nano(self) -> int:
        """The most that this account can cost so far."""
        return self.acked_nano + sum(promise.counted_nano for promise in self.promises)

    def promise(self, promise: Promise) -> ClientAccount:
        """Count a new request. Raises OurFault when its id is in use or its maximum below the terms' minimum."""
        if any(other.request_id == promise.request_id for other in self.promises):
            raise OurFault("this request id is in use", "draw 32 fresh random bytes for every request")
        if promise.maximum_nano < promise.terms.minimum_nano:
            raise OurFault(
                f"the maximum of {promise.maximum_nano} nanoTON is below the terms' minimum charge",
                f"allow {promise.terms.minimum_nano} or more",
            )
        if self.cap_nano + promise.maximum_nano > MAX_AMOUNT_NANO:
            raise OurFault("the cap would be over 64 bits", "lower the request's maximum")
        return replace(self, promises=(*self.promises, replace(promise, standing=Standing.PROMISED, receipt=None)))

    def voucher(self, terms: bytes) -> Voucher:
        """The voucher for what is promised now, to be signed and sent with a request under `terms` (hash)."""
        return Voucher(self.allotment, self.key, self.cap_nano, self.acked_nano, terms)

    def receive(self, issued: IssuedReceipt, response: bytes | None = None) -> ClientAccount:
        """Take a receipt from an answer (with its response digest) or from a `behind` list (without).

        It waits when an earlier one is missing. A receipt that is in the chain already changes nothing.
        Raises what `receipts.check_issued` raises, and ReceiptFault or Equivocation for its place in the chain.
        """
        seq = issued.signed.receipt.seq
        promise = next((one for one in self.promises if one.request_id == issued.request_id), None)
        if promise is None:
            issued.signed.check(self.key)
            if seq <= self.seq:
                return self
            raise ReceiptFault("a receipt came for a request that was never made")
        check_issued(issued, self._expectation(promise), response)
        if promise.receipt is not None:
            if promise.receipt.signed.receipt != issued.signed.receipt:
                raise _equivocation("the node signed two receipts for one request", promise.receipt, issued)
            return self
        if seq <= self.seq:
            raise ReceiptFault(
                f"the node signed another receipt number {seq} before", "report it with the stored one, leave the node"
            )
        for other in self.promises:
            if other.receipt is not None and other.receipt.signed.receipt.seq == seq:
                raise _equivocation(f"the node signed two receipts number {seq}", other.receipt, issued)
        held = replace(promise.step(Step.RECEIPT), receipt=issued)
        return replace(self, promises=tuple(held if one is promise else one for one in self.promises))._chained()

    def receive_missed(self, missed: tuple[IssuedReceipt, ...]) -> ClientAccount:
        """Apply a `behind` list in order. All or nothing: raises as `receive` does."""
        account = self
        for issued in missed:
            account = account.receive(issued)
        return account

    def refused(self, request_id: bytes, refusal: Refusal) -> ClientAccount:
        """Take the enclave's sealed refusal: its missed receipts, then drop the promise. Raises as `receive` does.

        ALREADY_OPENED drops nothing: that request did run or still runs. An error in clear must not come here.
        """
        account = self.receive_missed(refusal.missed)
        if refusal.error.code is Code.ALREADY_OPENED:
            return account
        for promise in account.promises:
            if promise.request_id == request_id:
                if promise.receipt is not None:
                    raise ReceiptFault("the node refuses a request that it signed a receipt for")
                promise.step(Step.REFUSE)
        return replace(account, promises=tuple(one for one in account.promises if one.request_id != request_id))

    def expire(self, now: int) -> ClientAccount:
        """Stop counting promises whose sealing key has ended MAX_REQUEST_SECONDS before `now`."""
        return replace(
            self,
            promises=tuple(
                one.step(Step.EXPIRE)
                if one.standing is Standing.PROMISED and one.expires_at + MAX_REQUEST_SECONDS < now
                else one
                for one in self.promises
            ),
        )

    def _expectation(self, promise: Promise) -> Expectation:
        return Expectation(
            self.allotment, self.node, self.key, promise.terms, promise.maximum_nano, promise.salt, promise.request
        )

    def _chained(self) -> ClientAccount:
        account = self
        while True:
            following = account.seq + 1
            for promise in account.promises:
                if promise.receipt is not None and promise.receipt.signed.receipt.seq == following:
                    break
            else:
                return account
            receipt = promise.receipt.signed.receipt
            if receipt.previous != account.previous:
                raise ReceiptFault(f"receipt {receipt.seq} does not follow the one before it")
            if receipt.cumulative_nano != account.acked_nano + receipt.amount_nano:
                raise ReceiptFault(f"receipt {receipt.seq} adds up to another total")
            promise.step(Step.CHAIN)
            account = replace(
                account,
                seq=receipt.seq,
                previous=receipt.hash,
                acked_nano=receipt.cumulative_nano,
                promises=tuple(one for one in account.promises if one is not promise),
            )


def _equivocation(cause: str, first: IssuedReceipt, second: IssuedReceipt) -> Equivocation:
    return Equivocation(cause, first.signed.to_bytes(), second.signed.to_bytes())
