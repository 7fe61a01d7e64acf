"""Terms, voucher, receipt: what a request may cost, consent to pay, what it cost. Signed as in `wrappers.signed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pytoniq_core import Cell, begin_cell

from wrappers.cells import nothing_left, open_tagged
from wrappers.ops import Tag


@dataclass(frozen=True, slots=True)
class Terms:
    """Model and prices, in nanoTON per 2^20 tokens, and the minimum charge of one request. TL-B: Terms."""

    model: bytes
    prompt_price: int
    cached_price: int
    completion_price: int
    reasoning_price: int
    minimum_nano: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.TERMS, 32).store_bytes(self.model).store_uint(self.prompt_price, 64)
        cell.store_uint(self.cached_price, 64).store_uint(self.completion_price, 64)
        return cell.store_uint(self.reasoning_price, 64).store_uint(self.minimum_nano, 64).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = open_tagged(cell, Tag.TERMS)
        terms = cls(s.load_bytes(32), *(s.load_uint(64) for _ in range(5)))
        nothing_left(s, "terms")
        return terms

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class Voucher:
    """The client's consent to pay up to `cap_nano` in all, of which `acked_nano` is already accepted. TL-B: Voucher."""

    allotment: bytes
    key: bytes
    """The enclave key that it is for."""
    cap_nano: int
    acked_nano: int
    terms: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.VOUCHER, 32).store_bytes(self.allotment).store_bytes(self.key)
        return cell.store_uint(self.cap_nano, 64).store_uint(self.acked_nano, 64).store_bytes(self.terms).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = open_tagged(cell, Tag.VOUCHER)
        voucher = cls(s.load_bytes(32), s.load_bytes(32), s.load_uint(64), s.load_uint(64), s.load_bytes(32))
        nothing_left(s, "voucher")
        return voucher


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one request cost and the running total: the claimable, outer part. TL-B: Receipt."""

    allotment: bytes
    node: bytes
    """Node id."""
    seq: int
    terms: bytes
    amount_nano: int
    cumulative_nano: int
    previous: bytes
    """Hash of the receipt before; 32 zero bytes in the first."""
    inner: bytes

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.previous).store_bytes(self.inner).end_cell()
        cell = begin_cell().store_uint(Tag.RECEIPT, 32).store_bytes(self.allotment).store_bytes(self.node)
        cell.store_uint(self.seq, 32).store_bytes(self.terms).store_uint(self.amount_nano, 64)
        return cell.store_uint(self.cumulative_nano, 64).store_ref(more).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = open_tagged(cell, Tag.RECEIPT)
        allotment, node, seq, terms = s.load_bytes(32), s.load_bytes(32), s.load_uint(32), s.load_bytes(32)
        amount, cumulative, more = s.load_uint(64), s.load_uint(64), s.load_ref().begin_parse()
        receipt = cls(allotment, node, seq, terms, amount, cumulative, more.load_bytes(32), more.load_bytes(32))
        nothing_left(more, "receipt")
        nothing_left(s, "receipt")
        return receipt

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class InnerReceipt:
    """What only client and enclave know; opened by whoever disputes. TL-B: InnerReceipt."""

    salt: bytes
    model: bytes
    """Hash of the loaded weights; 32 zero bytes: unmeasured."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    stop: int
    request: bytes
    response: bytes
    logprobs: bytes

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.response).store_bytes(self.logprobs).end_cell()
        cell = begin_cell().store_bytes(self.salt).store_bytes(self.model).store_uint(self.prompt_tokens, 32)
        cell.store_uint(self.cached_tokens, 32).store_uint(self.completion_tokens, 32)
        cell.store_uint(self.reasoning_tokens, 32).store_uint(self.stop, 8).store_bytes(self.request)
        return cell.store_ref(more).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        salt, model = s.load_bytes(32), s.load_bytes(32)
        prompt, cached, completion, reasoning = (s.load_uint(32) for _ in range(4))
        stop, request, more = s.load_uint(8), s.load_bytes(32), s.load_ref().begin_parse()
        inner = cls(
            salt,
            model,
            prompt,
            cached,
            completion,
            reasoning,
            stop,
            request,
            more.load_bytes(32),
            more.load_bytes(32),
        )
        nothing_left(more, "inner receipt")
        nothing_left(s, "inner receipt")
        return inner

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)
