"""An escrow, one client account: its state, and every message it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from pytoniq_core import Cell, begin_cell

from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.dicts import ids_cell, load_ids
from wrappers.ops import Op
from wrappers.rows import Fee, Row, RowTerms, fee_builder, load_fee
from wrappers.signed import allotment_id

STUB_BITS = 552
MAX_ROWS = 16
MAX_KEYS = 16
"""Enclave keys per row."""


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
class NextKey:
    """A voucher key that waits to replace the present one. TL-B: NextKey."""

    key: bytes
    ready_at: int
    """From then on anyone may put it in place, and what the key before it signed is worth nothing."""

    def to_cell(self) -> Cell:
        return begin_cell().store_bytes(self.key).store_uint(self.ready_at, 32).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        return cls(s.load_bytes(32), s.load_uint(32))


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
    next_key: NextKey | None = None
    fee: Fee | None = None
    """What the treasury gets of every row's payments."""

    @property
    def free_nano(self) -> int:
        """What the owner may withdraw or allot."""
        return self.deposit_nano - self.reserved_nano

    def closes_at(self, node: bytes) -> int:
        """When claims of `node` may stop being payable: a close timer's end, or a waiting voucher key's; 0 = never."""
        row = self.rows.get(node)
        ends = (row.closing_at if row else 0, self.next_key.ready_at if self.next_key else 0)
        return min((end for end in ends if end), default=0)

    def to_cell(self) -> Cell:
        static = begin_cell().store_bytes(self.registry)
        static.store_maybe_ref(self.next_key.to_cell() if self.next_key else None)
        static.store_uint(self.min_close_timer, 32).store_uint(self.max_close_timer, 32)
        static.store_cell(fee_builder(self.fee).end_cell())
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
        registry, pending = static.load_bytes(32), static.load_maybe_ref()
        min_timer, max_timer, fee = static.load_uint(32), static.load_uint(32), load_fee(static)
        if s.remaining_bits or s.remaining_refs or static.remaining_bits or static.remaining_refs:
            raise CellError("data beyond the end")
        if escrow is None:
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
            NextKey.from_cell(pending) if pending is not None else None,
            fee,
        )


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
