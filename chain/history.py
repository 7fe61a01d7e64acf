"""The hash chain of an account's transactions: each names its predecessor by (lt, hash), so a run of them proves itself
relative to its head, whoever served it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.api import ChainError, Transaction

ZERO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A transaction of one account, as a position in its history. Persist it in the same database transaction as the
    facts that were read up to it."""

    lt: int
    hash: bytes


def cursor_of(transaction: Transaction) -> Cursor:
    return Cursor(transaction.lt, transaction.hash)


def previous(transaction: Transaction) -> Cursor | None:
    """The position before `transaction`; None where it is the first of its account."""
    return None if transaction.prev_lt == 0 else Cursor(transaction.prev_lt, transaction.prev_hash)


def check_links(transactions: Sequence[Transaction], head: Cursor, *, account: bytes, endpoint: str) -> None:
    """Raises ChainError unless `transactions`, newest first, begin with `head` and follow one another without a gap."""
    if not transactions:
        raise ChainError(
            f"{endpoint} gave no transaction at lt {head.lt} of account {account.hex()}, which exists: "
            "its history is pruned, or it lies; use an archival endpoint"
        )
    expected: Cursor | None = head
    for transaction in transactions:
        found = cursor_of(transaction)
        if transaction.account != account or found != expected:
            raise ChainError(
                f"{endpoint} lies about account {account.hex()}: transaction lt {found.lt} hash {found.hash.hex()} "
                f"where the hash chain demands {_say(expected)}; remove this endpoint"
            )
        expected = previous(transaction)


def _say(cursor: Cursor | None) -> str:
    return "the end of history" if cursor is None else f"lt {cursor.lt} hash {cursor.hash.hex()}"
