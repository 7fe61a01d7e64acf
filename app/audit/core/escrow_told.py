"""What an escrow's history makes of it, and one message of that history; `escrow_replay` has the rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pytoniq_core import Slice

from app.audit.core.history import gas_price
from chain.api import Transaction
from wrappers.gas import TEN_YEARS
from wrappers.prices import Prices
from wrappers.rows import KeyRow, RowTerms, part


class Unexplained(Exception):
    """A transaction did what these rules do not allow. Names it."""


@dataclass(slots=True)
class ToldRow:
    epoch: int
    allotted_nano: int
    terms: RowTerms
    paid_nano: int = 0
    paid_out_nano: int = 0
    seqno: int = 0
    closing_at: int = 0
    keys: dict[bytes, KeyRow] = field(default_factory=dict)
    current: bytes | None = None
    old: set[bytes] = field(default_factory=set)
    """Keys that have an entry beside the current one, for which rent is kept."""

    @property
    def accrued_nano(self) -> int:
        return part(self.paid_nano, self.terms.share) - part(self.paid_out_nano, self.terms.share)

    @property
    def present_terms(self) -> RowTerms:
        """As they were allotted, but for what the shares were last counted from."""
        shares = self.terms.shares
        return (
            self.terms
            if shares is None
            else replace(self.terms, shares=replace(shares, paid_out_nano=self.paid_out_nano))
        )


@dataclass(slots=True)
class Told:
    """What the history makes of the escrow."""

    owner: bytes
    deposit_nano: int
    code_size: tuple[int, int]
    """Cells and bits of the code that stays."""
    voucher_key: bytes
    rows: dict[bytes, ToldRow] = field(default_factory=dict)
    closing: bool = False
    next_key: bytes | None = None
    paid_nano: dict[bytes, int] = field(default_factory=dict)
    """What each node was ever sent, rows that have ended included."""
    named: set[bytes] = field(default_factory=set)
    """Nodes of all rows there ever were, and who got shares of them."""

    def add_row(self, node: bytes, row: ToldRow) -> None:
        self.rows[node] = row
        self.named.add(node)
        shares = row.terms.shares
        if shares is not None:
            self.named |= {shares.relayer, shares.royalty, *([shares.fee.treasury] if shares.fee else [])}

    @property
    def reserved_nano(self) -> int:
        return sum(row.allotted_nano - row.paid_nano for row in self.rows.values())

    @property
    def accrued_nano(self) -> int:
        return sum(row.accrued_nano for row in self.rows.values())

    @property
    def free_nano(self) -> int:
        return self.deposit_nano - self.reserved_nano


@dataclass(frozen=True, slots=True)
class Event:
    """One message that the escrow took. `body`: behind the op."""

    transaction: Transaction
    body: Slice
    value_nano: int
    balance_nano: int
    """With the message, without the rent that was due."""
    prices: Prices

    def gas(self, gas: int) -> int:
        return gas_price(self.transaction, gas)

    def rent(self, cells: int, bits: int) -> int:
        return self.prices.storage(cells, bits, TEN_YEARS)
