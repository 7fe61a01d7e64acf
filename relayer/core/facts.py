"""Facts: what the world told the relayer. Past tense, frozen, no logic.

The shell verifies before it states: a signature was checked, a chain answer was agreed on by two endpoints. Times are
unix seconds, amounts nanoTON, accounts 32-byte ids in workchain 0.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayerStarted:
    """One request that was open when the process ended is found again at start."""

    request_id: bytes
    at: int


@dataclass(frozen=True, slots=True)
class RequestAdmitted:
    request_id: bytes
    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    """The enclave key that the voucher is for."""
    cap_nano: int
    acked_nano: int
    attempt: int
    """Tells repeats of one request id apart."""
    at: int


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """LAST or REFUSAL passed to the client."""

    request_id: bytes
    attempt: int
    at: int


@dataclass(frozen=True, slots=True)
class RequestBroken:
    """The stream ended without LAST. `code` is the error the client got, or why it got none."""

    request_id: bytes
    code: str
    attempt: int
    at: int


@dataclass(frozen=True, slots=True)
class ReceiptSeen:
    """A receipt whose signature by `key` was verified. `request_id` is None when it came outside a stream."""

    request_id: bytes | None
    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    seq: int
    amount_nano: int
    cumulative_nano: int
    hash: bytes
    at: int


@dataclass(frozen=True, slots=True)
class RowSeen:
    """What the escrow, as agreed on by two endpoints, holds for one (allotment, key) at logical time `lt`."""

    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    lt: int
    key_paid_nano: int
    row_paid_nano: int
    allotted_nano: int
    closing_at: int
    """0: the row is not closing, and no voucher key waits to replace the present one."""
    at: int


@dataclass(frozen=True, slots=True)
class RowGone:
    """The row of this allotment ended: nothing under it can be claimed any more."""

    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    lt: int
    at: int


@dataclass(frozen=True, slots=True)
class ClaimDue:
    """The policy asks for a claim, for `reason`. `ask` is a number never used before."""

    node: bytes
    ask: int
    reason: str
    unclaimed_nano: int
    at: int


@dataclass(frozen=True, slots=True)
class ClaimReady:
    """The agent handed a signed batch claim: `message` is the whole external message as a bag of cells."""

    node: bytes
    seqno: int
    valid_until: int
    message_hash: bytes
    message: bytes
    at: int


@dataclass(frozen=True, slots=True)
class ClaimDeclined:
    """The agent answered the ask with an error, or not at all (`too_late`)."""

    node: bytes
    ask: int
    code: str
    at: int


@dataclass(frozen=True, slots=True)
class ClaimSubmitted:
    """A chain endpoint took the message. It says nothing about its landing."""

    node: bytes
    seqno: int
    message_hash: bytes
    at: int


@dataclass(frozen=True, slots=True)
class ClaimLanded:
    """The node's seqno went past the claim's, as agreed on by two endpoints."""

    node: bytes
    seqno: int
    """Of the claim that was out."""
    message_hash: bytes
    """Of the claim that was out; a node born anew counts its seqno from 0 again."""
    at: int


@dataclass(frozen=True, slots=True)
class ClaimExpired:
    """The chain's clock is past valid_until, with a margin, and the node's seqno is still the claim's."""

    node: bytes
    seqno: int
    message_hash: bytes
    at: int


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """The node as agreed on by two endpoints. `epoch` is the logical time of its birth."""

    node: bytes
    lt: int
    epoch: int
    seqno: int
    signing_key: bytes | None
    attested_until: int
    at: int


@dataclass(frozen=True, slots=True)
class OfferPublished:
    """An offer that the chain confirms went live for the node."""

    node: bytes
    key: bytes
    offer_hash: bytes
    at: int


Fact = (
    RelayerStarted
    | RequestAdmitted
    | RequestAnswered
    | RequestBroken
    | ReceiptSeen
    | RowSeen
    | RowGone
    | ClaimDue
    | ClaimReady
    | ClaimDeclined
    | ClaimSubmitted
    | ClaimLanded
    | ClaimExpired
    | NodeSeen
    | OfferPublished
)


def key_of(fact: Fact) -> str:
    """The name under which a fact is recorded once. Two facts with one key tell the same event.

    Facts that repeat by nature (a request posted again, a row read again) carry what tells the repeats apart: an ask
    number, a logical time, an attempt.
    """
    kind = type(fact).__name__
    match fact:
        case ReceiptSeen():
            return f"{kind}:{fact.key.hex()}:{fact.hash.hex()}"
        case RowSeen() | RowGone():
            return f"{kind}:{fact.allotment.hex()}:{fact.key.hex()}:{fact.lt}"
        case ClaimDue() | ClaimDeclined():
            return f"{kind}:{fact.node.hex()}:{fact.ask}"
        case ClaimReady() | ClaimSubmitted() | ClaimLanded() | ClaimExpired():
            return f"{kind}:{fact.node.hex()}:{fact.message_hash.hex()}"
        case NodeSeen():
            return f"{kind}:{fact.node.hex()}:{fact.lt}"
        case OfferPublished():
            return f"{kind}:{fact.node.hex()}:{fact.offer_hash.hex()}"
        case RelayerStarted():
            return f"{kind}:{fact.request_id.hex()}:{fact.at}"
        case RequestAdmitted() | RequestAnswered() | RequestBroken():
            return f"{kind}:{fact.request_id.hex()}:{fact.attempt}"
