"""What of a chain must outlive its process."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import BlockId, Transaction
from devnet.accounts import StoredAccount
from devnet.ledger import Pending


@dataclass(frozen=True, slots=True)
class SavedRound:
    """A round without its states."""

    seqno: int
    now: int
    start_lt: int
    end_lt: int
    master: Cell
    shard: Cell
    master_id: BlockId
    shard_id: BlockId


@dataclass(frozen=True, slots=True)
class Saved:
    now: int
    lt: int
    offset_seconds: int
    accounts: dict[bytes, StoredAccount]
    transactions: list[tuple[Transaction, int]]
    """With the seqno of their round, by logical time."""
    rounds: list[SavedRound]
    ids: dict[int, tuple[BlockId, BlockId]]
    """Masterchain and workchain-0 block ids of every round that is remembered, kept or not."""
    queue: list[Pending]
