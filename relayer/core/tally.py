"""The tally of one (allotment, enclave key): what receipts say is earned against what the chain says is paid.

No machine: every figure only grows, or follows the chain's logical time, so facts may come twice and in any order and
the result is the same. What is claimable is derived, never stored by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relayer.core.facts import Fact, ReceiptSeen, RowGone, RowSeen


@dataclass(frozen=True, slots=True)
class Tally:
    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    seq: int = 0
    cumulative_nano: int = 0
    """Of the newest receipt seen."""
    receipt_at: int = 0
    """When the first receipt over what is paid came."""
    lt: int = 0
    """Logical time at which the escrow was read; 0: not read yet."""
    paid_nano: int = 0
    """Paid to this key."""
    room_nano: int | None = None
    """What the row can still pay; None while the escrow has not been read."""
    closing_at: int = 0
    gone: bool = False

    @property
    def unclaimed_nano(self) -> int:
        """What a claim could bring now. What the allotment refuses stays earned but is not counted here."""
        if self.gone:
            return 0
        owed_nano = max(0, self.cumulative_nano - self.paid_nano)
        return owed_nano if self.room_nano is None else min(owed_nano, self.room_nano)


def step(tally: Tally | None, fact: Fact) -> Tally | None:
    match fact:
        case ReceiptSeen():
            known = tally or Tally(fact.escrow, fact.node, fact.allotment, fact.key)
            return _earn(known, fact)
        case RowSeen():
            known = tally or Tally(fact.escrow, fact.node, fact.allotment, fact.key)
            return _read(known, fact)
        case RowGone():
            # A row never comes back under its allotment id; seen again later, it had never been gone.
            return replace(tally, gone=True, lt=max(tally.lt, fact.lt)) if tally else None
    return tally


def _earn(tally: Tally, fact: ReceiptSeen) -> Tally:
    if fact.cumulative_nano <= tally.cumulative_nano and fact.seq <= tally.seq:
        return tally
    waiting = tally.cumulative_nano > tally.paid_nano
    return replace(
        tally,
        seq=max(tally.seq, fact.seq),
        cumulative_nano=max(tally.cumulative_nano, fact.cumulative_nano),
        receipt_at=tally.receipt_at if waiting else fact.at,
    )


def _read(tally: Tally, fact: RowSeen) -> Tally:
    if fact.lt < tally.lt:
        return tally
    return replace(
        tally,
        lt=fact.lt,
        paid_nano=max(tally.paid_nano, fact.key_paid_nano),
        room_nano=max(0, fact.allotted_nano - fact.row_paid_nano),
        closing_at=fact.closing_at,
        gone=tally.gone and fact.lt == tally.lt,
    )
