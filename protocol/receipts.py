"""Receipts as they travel, and the client's check of one.

The outer receipt and its signature go in clear (the relayer settles with them), the inner receipt only inside a
seal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from protocol.codec import Reader, fixed, uint
from protocol.errors import Malformed, NotAuthentic, OurFault, Peer, ReceiptFault
from protocol.pricing import Stop, Usage, charge
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.signed import verify

SIGNED_RECEIPT_BYTES = 244
INNER_RECEIPT_BYTES = 177
UNMEASURED = bytes(32)
"""Model hash of an engine whose weights the enclave did not load itself: shown as unmeasured."""


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    receipt: Receipt
    signature: bytes
    """64 bytes, by the enclave's signing key."""

    def to_bytes(self) -> bytes:
        """allotment | node | seq u32 | terms | amount u64 | total u64 | previous | inner | signature: 244 bytes."""
        r = self.receipt
        return b"".join(
            (
                fixed(r.allotment, 32, "the allotment id"),
                fixed(r.node, 32, "the node id"),
                uint(r.seq, 32, "the receipt's seq"),
                fixed(r.terms, 32, "the terms hash"),
                uint(r.amount_nano, 64, "the amount"),
                uint(r.cumulative_nano, 64, "the running total"),
                fixed(r.previous, 32, "the previous receipt's hash"),
                fixed(r.inner, 32, "the inner hash"),
                fixed(self.signature, 64, "the signature"),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        s = Reader(data, "a receipt")
        receipt = Receipt(
            s.take(32), s.take(32), s.uint(32), s.take(32), s.uint(64), s.uint(64), s.take(32), s.take(32)
        )
        signed = cls(receipt, s.take(64))
        s.end()
        return signed

    def check(self, signing_key: bytes) -> None:
        """Raises NotAuthentic unless the holder of `signing_key` (32 bytes) signed this receipt."""
        if not verify(self.receipt, self.signature, signing_key):
            raise NotAuthentic(
                Peer.PATH, "the receipt's signature does not hold", "repeat the same request id, or change the relayer"
            )


def inner_to_bytes(inner: InnerReceipt) -> bytes:
    """salt | model | 4 token counts u32 | stop u8 | request | response | logprobs: 177 bytes."""
    counts = (inner.prompt_tokens, inner.cached_tokens, inner.completion_tokens, inner.reasoning_tokens)
    return b"".join(
        (
            fixed(inner.salt, 32, "the salt"),
            fixed(inner.model, 32, "the model hash"),
            *(uint(count, 32, "a token count") for count in counts),
            uint(inner.stop, 8, "the stop reason"),
            fixed(inner.request, 32, "the request commitment"),
            fixed(inner.response, 32, "the response commitment"),
            fixed(inner.logprobs, 32, "the logprobs commitment"),
        )
    )


def inner_from_bytes(data: bytes) -> InnerReceipt:
    s = Reader(data, "an inner receipt")
    salt, model = s.take(32), s.take(32)
    prompt, cached, completion, reasoning = (s.uint(32) for _ in range(4))
    stop = s.uint(8)
    inner = InnerReceipt(salt, model, prompt, cached, completion, reasoning, stop, s.take(32), s.take(32), s.take(32))
    s.end()
    return inner


def usage_of(inner: InnerReceipt) -> tuple[Usage, Stop]:
    """Raises ReceiptFault when the counts or the stop reason are impossible."""
    counts = (inner.prompt_tokens, inner.cached_tokens, inner.completion_tokens, inner.reasoning_tokens)
    if counts[1] > counts[0] or counts[3] > counts[2]:
        raise ReceiptFault(f"the receipt counts impossible tokens {counts}")
    try:
        return Usage(*counts), Stop(inner.stop)
    except ValueError as error:
        raise ReceiptFault(f"the receipt has an unknown stop reason {inner.stop}") from error


@dataclass(frozen=True, slots=True)
class IssuedReceipt:
    """A receipt with the id of its request and its opened inner part: what client and enclave hold, never in clear."""

    request_id: bytes
    signed: SignedReceipt
    inner: InnerReceipt

    SIZE = 32 + SIGNED_RECEIPT_BYTES + INNER_RECEIPT_BYTES

    def to_bytes(self) -> bytes:
        return fixed(self.request_id, 32, "the request id") + self.signed.to_bytes() + inner_to_bytes(self.inner)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        s = Reader(data, "an issued receipt")
        issued = cls(
            s.take(32),
            SignedReceipt.from_bytes(s.take(SIGNED_RECEIPT_BYTES)),
            inner_from_bytes(s.take(INNER_RECEIPT_BYTES)),
        )
        s.end()
        return issued


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the client knows about a request before its receipt: whatever is received is measured against this."""

    allotment: bytes
    node: bytes
    """Node id."""
    signing_key: bytes
    terms: Terms
    maximum_nano: int
    salt: bytes
    """`commitments.inner_salt` of the request's secret."""
    request: bytes
    """`commitments.request_commitment` of the request."""


def check_issued(issued: IssuedReceipt, expected: Expectation, response: bytes | None = None) -> None:
    """The client's whole check of one receipt, save for its place in the chain (see `protocol.account`).

    `response` is the digest over the answer as received; None when the answer was lost and only the receipt came.
    Raises NotAuthentic when nobody can be blamed, ReceiptFault when the enclave signed something wrong.
    """
    issued.signed.check(expected.signing_key)
    receipt, inner = issued.signed.receipt, issued.inner
    if inner.hash != receipt.inner or inner.salt != expected.salt:
        # The outer part is genuine, but it may be another request's receipt that a relayer swapped in.
        raise NotAuthentic(
            Peer.PATH, "the receipt is not for this request", "repeat the same request id, or change the relayer"
        )
    if (receipt.allotment, receipt.node, receipt.terms) != (expected.allotment, expected.node, expected.terms.hash):
        raise ReceiptFault("the receipt names another allotment, node or terms")
    if inner.model not in (expected.terms.model, UNMEASURED):
        raise ReceiptFault("the receipt names another model than the terms")
    if inner.request != expected.request:
        raise ReceiptFault("the receipt commits to another request than was sealed")
    if response is not None and inner.response != response:
        raise ReceiptFault("the receipt commits to another answer than was received")
    if receipt.amount_nano > expected.maximum_nano:
        raise ReceiptFault(f"the receipt bills {receipt.amount_nano} nanoTON over the maximum {expected.maximum_nano}")
    usage, stop = usage_of(inner)
    try:
        due = charge(expected.terms, usage, stop)
    except OurFault as error:
        raise ReceiptFault("the receipt counts more tokens than any amount could bill") from error
    if receipt.amount_nano != due:
        raise ReceiptFault(f"the receipt bills {receipt.amount_nano} nanoTON where usage x terms is {due}")


def parse_many(data: bytes, limit: int) -> tuple[IssuedReceipt, ...]:
    """A concatenation of at most `limit` issued receipts."""
    count, rest = divmod(len(data), IssuedReceipt.SIZE)
    if rest or count > limit:
        raise Malformed(f"{len(data)} bytes are not at most {limit} receipts")
    return tuple(
        IssuedReceipt.from_bytes(data[at : at + IssuedReceipt.SIZE]) for at in range(0, len(data), IssuedReceipt.SIZE)
    )
