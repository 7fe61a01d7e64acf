"""An escrow, one client account: its state, and every message it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from pytoniq_core import Builder, Cell, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import ids_cell, load_ids
from wrappers.ops import Op
from wrappers.signed import allotment_id

STUB_BITS = 552
MAX_ROWS = 16
MAX_KEYS = 16
"""Enclave keys per row."""


@dataclass(frozen=True, slots=True)
class RowTerms:
    """Frozen into a row when it is allotted. Shares in 1/10000 of a payment; must be 0 now. TL-B: RowTerms."""

    release_key: bytes
    close_timer: int
    relayer_share: int = 0
    royalty_share: int = 0
    treasury_share: int = 0

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.release_key).store_uint(self.close_timer, 32)
        cell.store_uint(self.relayer_share, 16).store_uint(self.royalty_share, 16)
        return cell.store_uint(self.treasury_share, 16).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        return cls(s.load_bytes(32), s.load_uint(32), s.load_uint(16), s.load_uint(16), s.load_uint(16))


@dataclass(frozen=True, slots=True)
class FirstAllotment:
    """TL-B: FirstAllotment."""

    node: bytes
    amount_nano: int
    terms: RowTerms

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.node).store_coins(self.amount_nano)
        return cell.store_ref(self.terms.to_cell()).end_cell()


@dataclass(frozen=True, slots=True)
class EscrowConfig:
    """What the owner chooses at birth. TL-B: EscrowConfig."""

    voucher_key: bytes
    first: FirstAllotment | None = None

    def to_cell(self) -> Cell:
        first = self.first.to_cell() if self.first is not None else None
        return begin_cell().store_bytes(self.voucher_key).store_maybe_ref(first).end_cell()


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
    """When it may be dropped; 0 while it is not closing."""
    terms: RowTerms
    keys: Mapping[bytes, KeyRow] = field(default_factory=dict)
    current_key: bytes | None = None
    """The key of the last settlement, kept in the row itself."""
    outdated: KeyRow | None = None
    """The current key's old entry among the keys before it, which counts for nothing."""
    allotment: bytes = NO_KEY
    """Allotment id, derived from network, escrow, epoch and node."""

    def to_builder(self) -> Builder:
        old = {key: row for key, row in self.keys.items() if key != self.current_key}
        if self.current_key is not None and self.outdated is not None:
            old[self.current_key] = self.outdated
        current = self.keys[self.current_key] if self.current_key is not None else KeyRow()
        cell = begin_cell().store_uint(self.epoch, 64).store_uint(self.allotted_nano, 64)
        cell.store_uint(self.seqno, 32).store_uint(self.closing_at, 32).store_bytes(self.current_key or NO_KEY)
        cell.store_uint(self.paid_nano, 64).store_cell(current.to_builder().end_cell())
        cell.store_uint(len(old), 8).store_dict(ids_cell(old, KeyRow.to_builder))
        return cell.store_ref(self.terms.to_cell())

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        epoch, allotted, seqno, closing_at = s.load_uint(64), s.load_uint(64), s.load_uint(32), s.load_uint(32)
        current, paid, current_row, count = s.load_bytes(32), s.load_uint(64), KeyRow.from_slice(s), s.load_uint(8)
        keys = load_ids(s, KeyRow.from_slice)
        if len(keys) != count:
            raise CellError("a row's key count does not agree with its keys")
        outdated = keys.get(current)
        if current != NO_KEY:
            keys[current] = current_row
        terms = RowTerms.from_cell(s.load_ref())
        key = current if current != NO_KEY else None
        return cls(epoch, allotted, paid, seqno, closing_at, terms, keys, key, outdated)


@dataclass(frozen=True, slots=True)
class EscrowState:
    """TL-B: EscrowData. Amounts nanoTON, times unix seconds."""

    voucher_key: bytes
    network_id: bytes
    closing: bool
    deposit_nano: int
    """All of the owner's money here, the reserve for rent aside; falls with payments."""
    reserved_nano: int
    """Allotted and not paid yet, over all rows."""
    accrued_nano: int
    rows: Mapping[bytes, Row]
    """By node."""
    registry: bytes
    owner: bytes
    index: int
    min_close_timer: int
    max_close_timer: int

    @property
    def free_nano(self) -> int:
        """What the owner may withdraw or allot."""
        return self.deposit_nano - self.reserved_nano

    def to_cell(self) -> Cell:
        static = begin_cell().store_bytes(self.registry)
        static.store_uint(self.min_close_timer, 32).store_uint(self.max_close_timer, 32)
        root = begin_cell().store_bytes(self.owner).store_uint(self.index, 32).store_bytes(self.voucher_key)
        root.store_bytes(self.network_id).store_bit(int(self.closing))
        root.store_uint(len(self.rows), 8).store_dict(ids_cell(self.rows, Row.to_builder))
        root.store_coins(self.deposit_nano).store_coins(self.reserved_nano).store_coins(self.accrued_nano)
        return root.store_ref(static.end_cell()).end_cell()

    @classmethod
    def from_cell(cls, data: Cell, escrow: bytes | None = None) -> Self | None:
        """None while the account is still a stub. Raises CellError for what is not an escrow.

        The allotment ids of the rows need the account's own id; by default it is computed from registry and owner.
        """
        if len(data.bits) == STUB_BITS and not data.refs:
            return None
        try:
            return cls._parse(data, escrow)
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not an escrow's state: {error}") from error

    @classmethod
    def _parse(cls, data: Cell, escrow: bytes | None) -> Self:
        s = data.begin_parse()
        owner, index, voucher_key, network = s.load_bytes(32), s.load_uint(32), s.load_bytes(32), s.load_bytes(32)
        closing = bool(s.load_bit())
        count, bare = s.load_uint(8), load_ids(s, Row.from_slice)
        deposit, reserved, accrued = s.load_coins() or 0, s.load_coins() or 0, s.load_coins() or 0
        if len(bare) != count:
            raise CellError("the row count does not agree with the rows")
        static = s.load_ref().begin_parse()
        registry = static.load_bytes(32)
        min_timer, max_timer = static.load_uint(32), static.load_uint(32)
        if s.remaining_bits or s.remaining_refs or static.remaining_bits or static.remaining_refs:
            raise CellError("data beyond the end")
        if escrow is None:
            from wrappers.registry import Kind, child_address  # the registry's module builds on this one

            escrow = child_address(registry, Kind.ESCROW, owner, index)
        rows = {
            node: replace(row, allotment=allotment_id(network, escrow, row.epoch, node)) for node, row in bare.items()
        }
        return cls(
            voucher_key,
            network,
            closing,
            deposit,
            reserved,
            accrued,
            rows,
            registry,
            owner,
            index,
            min_timer,
            max_timer,
        )


def payable(row: Row, key: bytes, cumulative_nano: int, cap_nano: int) -> int:
    """What a settlement of `cumulative_nano` under a voucher for `cap_nano` would pay now, in nanoTON."""
    known = row.keys.get(key, KeyRow())
    target = min(cumulative_nano, max(cap_nano, known.cap_nano))
    return max(0, min(target - known.paid_nano, row.allotted_nano - row.paid_nano))


def top_up() -> Cell:
    """Body from anyone; an empty body or a text comment does the same."""
    return begin_cell().store_uint(Op.TOP_UP, 32).end_cell()


def allot(node: bytes, amount_nano: int, terms: RowTerms) -> Cell:
    """Body from the owner: a new row; the message's value above fees is added to the deposit first."""
    body = begin_cell().store_uint(Op.ALLOT, 32).store_bytes(node).store_coins(amount_nano)
    return body.store_ref(terms.to_cell()).end_cell()


def raise_allotment(node: bytes, amount_nano: int) -> Cell:
    """Body from the owner: adds `amount_nano` to a row; releases signed before become worthless."""
    return begin_cell().store_uint(Op.RAISE, 32).store_bytes(node).store_coins(amount_nano).end_cell()


def lower(node: bytes, allotted_nano: int, signature: bytes) -> Cell:
    """Body from anyone: lowers a row to `allotted_nano`; `signature` is the node's over `signed.Release`."""
    body = begin_cell().store_uint(Op.LOWER, 32).store_bytes(node).store_uint(allotted_nano, 64)
    return body.store_bytes(signature).end_cell()


def reclaim(node: bytes) -> Cell:
    """Body from the owner: starts a row's close timer; `finish` frees the money when it has run."""
    return begin_cell().store_uint(Op.RECLAIM, 32).store_bytes(node).end_cell()


def withdraw(amount_nano: int = 0) -> Cell:
    """Body from the owner; 0 = everything free."""
    return begin_cell().store_uint(Op.WITHDRAW, 32).store_coins(amount_nano).end_cell()


@dataclass(frozen=True, slots=True)
class CloseRelease:
    """One row's release inside `close`. TL-B: CloseRelease."""

    node: bytes
    allotted_nano: int
    signature: bytes


def close(releases: Sequence[CloseRelease] = ()) -> Cell:
    """Body from the owner: rows end at once where released, else after their timers; free money leaves at once."""
    chain: Cell | None = None
    for release in reversed(releases):
        cell = begin_cell().store_bytes(release.node).store_uint(release.allotted_nano, 64)
        chain = cell.store_bytes(release.signature).store_maybe_ref(chain).end_cell()
    return begin_cell().store_uint(Op.CLOSE, 32).store_maybe_ref(chain).end_cell()


def finish() -> Cell:
    """Body from anyone: drops the rows whose timers have run; ends a closing account that has no rows left."""
    return begin_cell().store_uint(Op.FINISH, 32).end_cell()
