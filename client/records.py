"""What the client's books hold, one type per kind of entry."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.receipts import IssuedReceipt
from wrappers.receipts import Terms


@dataclass(frozen=True, slots=True)
class AccountOf:
    """Whose account it is: one per allotment and enclave key. `node` is the node's account."""

    allotment: bytes
    key: bytes
    escrow: bytes
    epoch: int
    node: bytes
    node_epoch: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request without an accepted receipt: all that a repeat of the same id needs."""

    request_id: bytes
    allotment: bytes
    key: bytes
    sealed: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    body: bytes | None = field(repr=False)
    """Only where texts are kept."""
    model: str
    tier: int
    simulated: bool
    expires_at: int
    """End of the sealing key: later the request can be opened no more."""
    outer: bytes | None = None
    """Receipt in clear that came before its sealed part did."""


@dataclass(frozen=True, slots=True)
class Held:
    """An accepted receipt and the client's own part of its proof."""

    issued: IssuedReceipt
    allotment: bytes
    key: bytes
    terms: Terms
    maximum_nano: int
    request: bytes
    """Commitment to the request, as the client made it."""
    model: str
    tier: int
    simulated: bool
    answered: bool
    """Whether the whole answer arrived with it."""
    received_at: int
    secret: bytes | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    answer: bytes | None = field(default=None, repr=False)

    @property
    def hash(self) -> bytes:
        return self.issued.signed.receipt.hash


@dataclass(frozen=True, slots=True)
class Escrow:
    number: int
    account: bytes
    voucher_key: bytes
    state: str


@dataclass(frozen=True, slots=True)
class Payment:
    id: int
    kind: str
    message: bytes
    start_lt: int
    start_hash: bytes


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    key: bytes
    node: bytes
    node_epoch: int
    document: str
    verified_at: int
