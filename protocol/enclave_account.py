"""The enclave's mirror of `protocol.account`: what it may serve, and the receipts it owes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.account import MAX_UNACKED, NO_RECEIPT
from protocol.errors import Code, OurFault, ReceiptFault, WireError
from protocol.frames import MAX_MISSED, Refusal
from protocol.pricing import charge
from protocol.receipts import IssuedReceipt, SignedReceipt, usage_of
from wrappers.receipts import InnerReceipt, Receipt, Terms, Voucher
from wrappers.signed import sign


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in flight."""

    request_id: bytes
    maximum_nano: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class EnclaveAccount:
    """Lives as long as the enclave's key; a restart is a new key and new accounts."""

    allotment: bytes
    node: bytes
    """Node id."""
    key: bytes
    """The enclave's signing key, public."""
    seq: int = 0
    previous: bytes = NO_RECEIPT
    cumulative_nano: int = 0
    acked_seq: int = 0
    acked_nano: int = 0
    voucher: Voucher | None = None
    """The one with the highest cap (then acked) so far: it covers everything billed, claims carry it."""
    voucher_signature: bytes = bytes(64)
    admitted: tuple[Admitted, ...] = ()
    unacked: tuple[IssuedReceipt, ...] = ()
    """Receipts that the client has not accepted, in order of seq."""

    @property
    def cap_nano(self) -> int:
        return 0 if self.voucher is None else self.voucher.cap_nano

    @property
    def exposed_nano(self) -> int:
        """Billed so far plus the maxima in flight."""
        return self.cumulative_nano + sum(one.maximum_nano for one in self.admitted)

    def admit(
        self,
        voucher: Voucher,
        voucher_signature: bytes,
        *,
        request_id: bytes,
        maximum_nano: int,
        terms: Terms,
        acked_seq: int,
        max_unacked: int = MAX_UNACKED,
    ) -> tuple[EnclaveAccount, Refusal | None]:
        """Admit an opened request, or say under seal why not; the account moves on either way (acks count).

        Call `SealedRequest.check_authority` first, and refuse request ids that were opened before. Raises OurFault when
        the voucher is for another account.
        """
        if (voucher.allotment, voucher.key) != (self.allotment, self.key):
            raise OurFault("the voucher is for another account", "look the account up by allotment and key")
        if refusal := self._unbelievable(voucher, acked_seq, terms):
            return self, refusal
        account = self._acked(acked_seq)._covered(voucher, voucher_signature)
        if maximum_nano < terms.minimum_nano:
            return account, Refusal(WireError.of(Code.MAXIMUM_TOO_LOW), account.missed)
        if any(one.request_id == request_id for one in account.admitted):
            return account, Refusal(WireError.of(Code.ALREADY_OPENED), account.missed)
        if len(account.unacked) + len(account.admitted) >= max_unacked:
            code = Code.BEHIND if account.unacked else Code.RATE_LIMITED
            return account, Refusal(WireError.of(code), account.missed)
        if account.cap_nano < account.exposed_nano + maximum_nano:
            code = Code.BEHIND if account.unacked else Code.CAP_TOO_LOW
            detail = f"cap {account.cap_nano}, needed {account.exposed_nano + maximum_nano} nanoTON"
            return account, Refusal(WireError.of(code, detail), account.missed)
        return replace(account, admitted=(*account.admitted, Admitted(request_id, maximum_nano, terms))), None

    @property
    def missed(self) -> tuple[IssuedReceipt, ...]:
        """What a `behind` answer carries."""
        return self.unacked[:MAX_MISSED]

    def issue(
        self, request_id: bytes, inner: InnerReceipt, signing_key: Ed25519PrivateKey
    ) -> tuple[EnclaveAccount, IssuedReceipt]:
        """End an admitted request with its receipt; the amount follows from the inner receipt's usage and stop reason.

        Every admitted request must end here, also when it broke. Raises OurFault when the usage costs more than the
        request's maximum: the caller stops generating in time (`pricing.completion_budget`).
        """
        admitted = next((one for one in self.admitted if one.request_id == request_id), None)
        if admitted is None:
            raise OurFault("no such request is in flight", "issue exactly one receipt per admitted request")
        try:
            usage, stop = usage_of(inner)
        except ReceiptFault as error:
            raise OurFault(error.cause, "take counts and stop reason from the engine's final report") from error
        amount = charge(admitted.terms, usage, stop)
        if amount > admitted.maximum_nano:
            raise OurFault(
                f"usage costs {amount} nanoTON, over the request's maximum {admitted.maximum_nano}",
                "stop generating at the completion budget",
            )
        cumulative = self.cumulative_nano + amount
        receipt = Receipt(
            self.allotment, self.node, self.seq + 1, admitted.terms.hash, amount, cumulative, self.previous, inner.hash
        )
        issued = IssuedReceipt(request_id, SignedReceipt(receipt, sign(receipt, signing_key)), inner)
        account = replace(
            self,
            seq=receipt.seq,
            previous=receipt.hash,
            cumulative_nano=cumulative,
            admitted=tuple(one for one in self.admitted if one is not admitted),
            unacked=(*self.unacked, issued),
        )
        return account, issued

    def _unbelievable(self, voucher: Voucher, acked_seq: int, terms: Terms) -> Refusal | None:
        """Acks of what was never issued, or an amount that is not that of the receipt acked."""
        if voucher.terms != terms.hash:
            return Refusal(WireError.of(Code.VOUCHER_INVALID, "it names other terms"), self.missed)
        if voucher.acked_nano > min(self.cumulative_nano, voucher.cap_nano) or acked_seq > self.seq:
            return Refusal(WireError.of(Code.VOUCHER_INVALID, "it accepts receipts that do not exist"), self.missed)
        known = {self.acked_seq: self.acked_nano}
        known |= {one.signed.receipt.seq: one.signed.receipt.cumulative_nano for one in self.unacked}
        # Requests may overtake each other: an ack older than the newest is a repetition with nothing to compare it to.
        if known.get(acked_seq, voucher.acked_nano) != voucher.acked_nano:
            return Refusal(
                WireError.of(Code.VOUCHER_INVALID, "its amount is not that of its last receipt"), self.missed
            )
        return None

    def _acked(self, acked_seq: int) -> EnclaveAccount:
        acked = [one for one in self.unacked if one.signed.receipt.seq <= acked_seq]
        if not acked:
            return self
        newest = acked[-1].signed.receipt
        return replace(
            self, acked_seq=newest.seq, acked_nano=newest.cumulative_nano, unacked=self.unacked[len(acked) :]
        )

    def _covered(self, voucher: Voucher, signature: bytes) -> EnclaveAccount:
        held = self.voucher
        if held is not None and (held.cap_nano, held.acked_nano) >= (voucher.cap_nano, voucher.acked_nano):
            return self
        return replace(self, voucher=voucher, voucher_signature=signature)
