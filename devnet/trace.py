"""What one call on the ledger did, and which of its transactions failed."""

from __future__ import annotations

from dataclasses import dataclass

from chain.api import Transaction
from chain.reader import Reader


@dataclass(frozen=True, slots=True)
class Trace:
    """What one call did."""

    transactions: tuple[Transaction, ...]
    """In order of execution."""
    total_fees_nano: int
    """Fees of all transactions plus forward fees of all their messages: all that left any balance for good."""
    minted_nano: int
    """Value of injected messages, which no account paid."""
    left_nano: int
    """Value sent to other workchains, which the devnet does not have."""
    balance_delta_nano: int
    """The same amount as total_fees_nano, computed from balances and values in the queue instead of from fee fields."""

    @property
    def failed(self) -> tuple[Transaction, ...]:
        """Transactions whose code, actions or gas failed, or which bounced. A plain credit without code did not."""
        return tuple(tx for tx in self.transactions if failed(tx))

    def of(self, account: bytes) -> tuple[Transaction, ...]:
        return tuple(tx for tx in self.transactions if tx.account == account)


def failed(tx: Transaction) -> bool:
    if tx.exit_code not in (None, 0, 1) or tx.action_code not in (None, 0):
        return True
    return tx.aborted and _compute_skipped_for_cause(tx)


def _compute_skipped_for_cause(tx: Transaction) -> bool:
    """Aborted with no exit code: only `cskip_no_state` without a bounce is a plain credit."""
    if any(message.bounced for message in tx.out_msgs):
        return True
    reader = Reader(tx.cell.refs[2])
    reader.uint(4 + 1)  # trans_ord$0000, credit_first
    if reader.bit():
        reader.coins()
        reader.maybe_coins()
        if reader.bit():
            reader.bit()
    if reader.bit():
        reader.maybe_coins()
        reader.currency()
    return reader.uint(1) == 1 or reader.uint(2) != 0
