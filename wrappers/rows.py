"""The rows of an escrow: what is allotted to one node, under which terms, and what each of its keys was paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pytoniq_core import Builder, Cell, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import ids_cell, load_ids

NOBODY = bytes(32)
ENDED = 1
"""Row.closing_at of a row that is kept only until its shares leave."""
MAX_SHARES = 3000
"""Of each payment, all together, in 1/10000."""


def part(paid_nano: int, share: int) -> int:
    """What has gone to a share, in 1/10000, of all that a row has paid: rounded down once, over everything paid."""
    return paid_nano * share // 10_000


@dataclass(frozen=True, slots=True)
class Fee:
    """The treasury's share of each payment, in 1/10000; frozen into an escrow at its birth. TL-B: Fee."""

    share: int
    treasury: bytes


def fee_builder(fee: Fee | None) -> Builder:
    """TL-B: Maybe Fee."""
    if fee is None:
        return begin_cell().store_bit(0)
    return begin_cell().store_bit(1).store_uint(fee.share, 16).store_bytes(fee.treasury)


def load_fee(s: Slice) -> Fee | None:
    return Fee(s.load_uint(16), s.load_bytes(32)) if s.load_bit() else None


@dataclass(frozen=True, slots=True)
class Shares:
    """Who gets which part of a row's payments, in 1/10000 of each. TL-B: Shares."""

    relayer_share: int = 0
    royalty_share: int = 0
    relayer: bytes = NOBODY
    royalty: bytes = NOBODY
    fee: Fee | None = None
    """As the escrow froze it."""
    paid_out_nano: int = 0
    """What the row had paid when shares last left it; 0 when it is allotted."""

    @property
    def total(self) -> int:
        return self.relayer_share + self.royalty_share + (self.fee.share if self.fee else 0)

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(self.relayer_share, 16).store_uint(self.royalty_share, 16)
        cell.store_bytes(self.relayer).store_bytes(self.royalty).store_uint(self.paid_out_nano, 64)
        return cell.store_cell(fee_builder(self.fee).end_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        relayer_share, royalty_share, relayer, royalty = (
            s.load_uint(16),
            s.load_uint(16),
            s.load_bytes(32),
            s.load_bytes(32),
        )
        paid_out, fee = s.load_uint(64), load_fee(s)
        return cls(relayer_share, royalty_share, relayer, royalty, fee, paid_out)


@dataclass(frozen=True, slots=True)
class RowTerms:
    """Frozen into a row when it is allotted. TL-B: RowTerms."""

    release_key: bytes
    close_timer: int
    shares: Shares | None = None

    @property
    def share(self) -> int:
        """The sum of the shares, in 1/10000."""
        return self.shares.total if self.shares else 0

    @property
    def chosen_share(self) -> int:
        """What the owner chose to give away, in 1/10000: all shares but the network's fee."""
        return self.shares.relayer_share + self.shares.royalty_share if self.shares else 0

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.release_key).store_uint(self.close_timer, 32)
        return cell.store_maybe_ref(self.shares.to_cell() if self.shares else None).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        release_key, close_timer, shares = s.load_bytes(32), s.load_uint(32), s.load_maybe_ref()
        return cls(release_key, close_timer, Shares.from_cell(shares) if shares is not None else None)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What one enclave key was paid, and the client's highest consent seen for it. None of it ever decreases."""

    paid_nano: int = 0
    cap_nano: int = 0
    acked_nano: int = 0
    seq: int = 0

    def to_builder(self) -> Builder:
        cell = begin_cell().store_uint(self.paid_nano, 64).store_uint(self.cap_nano, 64)
        return cell.store_uint(self.acked_nano, 64).store_uint(self.seq, 32)

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        return cls(s.load_uint(64), s.load_uint(64), s.load_uint(64), s.load_uint(32))


NO_KEY = bytes(32)


@dataclass(frozen=True, slots=True)
class Row:
    """One allotment: a part of the deposit that is reserved for one node. TL-B: Row."""

    epoch: int
    """Logical time at which it was allotted."""
    allotted_nano: int
    paid_nano: int
    seqno: int
    """Counts raises and releases: an old release is worth nothing."""
    closing_at: int
    """When it may be dropped; 0 while it is not closing, ENDED when only its shares keep it."""
    terms: RowTerms
    keys: Mapping[bytes, KeyRow] = field(default_factory=dict)
    current_key: bytes | None = None
    """The key of the last settlement, kept in the row itself."""
    outdated: KeyRow | None = None
    """The current key's old entry among the keys before it, which counts for nothing."""
    allotment: bytes = NO_KEY
    """Allotment id, derived from network, escrow, epoch and node."""

    @property
    def accrued_nano(self) -> int:
        """What the row keeps for those who share in it."""
        shares = self.terms.shares
        if shares is None:
            return 0
        return part(self.paid_nano, shares.total) - part(shares.paid_out_nano, shares.total)

    def to_builder(self) -> Builder:
        old = {key: row for key, row in self.keys.items() if key != self.current_key}
        if self.current_key is not None and self.outdated is not None:
            old[self.current_key] = self.outdated
        current = self.keys[self.current_key] if self.current_key is not None else KeyRow()
        cell = begin_cell().store_uint(self.epoch, 64).store_uint(self.seqno, 32).store_uint(self.closing_at, 32)
        cell.store_uint(self.allotted_nano, 64).store_uint(self.terms.share, 12)
        cell.store_bytes(self.current_key or NO_KEY)
        cell.store_uint(self.paid_nano, 64).store_cell(current.to_builder().end_cell())
        cell.store_uint(len(old), 5).store_dict(ids_cell(old, KeyRow.to_builder))
        return cell.store_ref(self.terms.to_cell())

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        epoch, seqno, closing_at, allotted = s.load_uint(64), s.load_uint(32), s.load_uint(32), s.load_uint(64)
        share, current, paid = s.load_uint(12), s.load_bytes(32), s.load_uint(64)
        current_row, count = KeyRow.from_slice(s), s.load_uint(5)
        keys = load_ids(s, KeyRow.from_slice)
        if len(keys) != count:
            raise CellError("a row's key count does not agree with its keys")
        outdated = keys.get(current)
        if current != NO_KEY:
            keys[current] = current_row
        terms = RowTerms.from_cell(s.load_ref())
        if terms.share != share:
            raise CellError("a row's share does not agree with its terms")
        key = current if current != NO_KEY else None
        return cls(epoch, allotted, paid, seqno, closing_at, terms, keys, key, outdated)


def payable(row: Row, key: bytes, cumulative_nano: int, cap_nano: int, acked_nano: int, *, acked_only: bool) -> int:
    """What a settlement of `cumulative_nano` under a voucher for cap and acked would pay now, in nanoTON.

    `acked_only`: whether the node's account says so of this key.
    """
    known = row.keys.get(key, KeyRow())
    limit = max(acked_nano, known.acked_nano) if acked_only else max(cap_nano, known.cap_nano)
    target = min(cumulative_nano, limit)
    return max(0, min(target - known.paid_nano, row.allotted_nano - row.paid_nano))
