"""Whether a request is worth answering: what the operator checks for his own sake. Pure.

The enclave checks what protects the client, and does so again; here it is about being paid: the row exists, is ours, is
not about to vanish, and what it holds covers the voucher beside everything else that is owed from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import Code, WireError
from protocol.sealing import SealedRequest
from wrappers.escrow import MAX_KEYS, EscrowState
from wrappers.node import NodeState
from wrappers.rows import KeyRow, Row
from wrappers.signed import verify


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a request comes. Amounts nanoTON, `now` unix seconds."""

    node: bytes
    """The node's account."""
    node_state: NodeState
    key: bytes
    """The enclave's signing key."""
    escrow: EscrowState
    now: int
    owed_elsewhere_nano: int
    """Under the same row, signed by earlier keys and not paid yet."""
    released: bool
    """A release was signed for the row as it stands."""
    min_close_timer: int
    max_share: int = 0
    """What a row may give to others out of each payment beside the network's fee, in 1/10000."""


def refusal(request: SealedRequest, facts: Facts) -> WireError | None:
    """Why the request is not answered, None when it is."""
    if not facts.node_state.key_attested(facts.key, facts.now):
        return WireError.of(Code.NODE_NOT_LIVE)
    if facts.node_state.draining:
        return WireError.of(Code.NODE_DRAINING)
    if request.voucher.key != facts.key:
        return WireError.of(Code.SEALING_KEY_UNKNOWN, "the voucher is for another enclave key")
    row = facts.escrow.rows.get(facts.node)
    if row is None or row.allotment != request.voucher.allotment or row.epoch != request.allotment_epoch:
        return WireError.of(Code.ALLOTMENT_UNKNOWN)
    return _row_refusal(request, facts, facts.escrow, row)


def _row_refusal(request: SealedRequest, facts: Facts, escrow: EscrowState, row: Row) -> WireError | None:
    if row.terms.release_key != facts.node_state.release_key:
        # Whoever holds the row's release key can empty it at once.
        return WireError.of(Code.ALLOTMENT_UNKNOWN, "it was allotted under another release key than this node's")
    if row.terms.close_timer < facts.min_close_timer:
        detail = f"its close timer of {row.terms.close_timer} s is below this node's {facts.min_close_timer} s"
        return WireError.of(Code.ALLOTMENT_UNKNOWN, detail)
    if row.terms.chosen_share > facts.max_share:
        # Whom they go to is the client's word alone: he could name himself, and have a part of each payment back.
        detail = (
            f"{row.terms.chosen_share}/10000 of its payments go to others, this node takes {facts.max_share} at most"
        )
        return WireError.of(Code.ALLOTMENT_UNKNOWN, detail)
    if escrow.closing or row.closing_at:
        return WireError.of(Code.ALLOTMENT_CLOSING)
    if escrow.next_key is not None and facts.now >= escrow.next_key.ready_at - facts.min_close_timer:
        # Vouchers of the present key must be claimed by then; later ones may come too late.
        return WireError.of(Code.ALLOTMENT_CLOSING, "another voucher key is about to replace the present one")
    if facts.released:
        return WireError.of(Code.ALLOTMENT_CLOSING, "a release was signed for it")
    if facts.key not in row.keys and len(row.keys) >= MAX_KEYS:
        return WireError.of(Code.ALLOTMENT_UNKNOWN, f"it has seen {MAX_KEYS} enclave keys and can pay no other")
    own = row.keys.get(facts.key, KeyRow())
    available = row.allotted_nano - (row.paid_nano - own.paid_nano) - facts.owed_elsewhere_nano
    if request.voucher.cap_nano > available:
        detail = f"cap {request.voucher.cap_nano}, available {max(0, available)} nanoTON"
        return WireError.of(Code.ALLOTMENT_TOO_LOW, detail)
    if not verify(request.voucher, request.voucher_signature, escrow.voucher_key):
        # The chain would not pay it; the enclave is not bothered with it.
        return WireError.of(Code.VOUCHER_INVALID)
    return None
