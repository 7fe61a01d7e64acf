"""The chain on disk: SQLite, one SQL transaction per round, so that a kill loses at most the round in the making."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from chain.api import BlockId
from chain.decode import decode_message, decode_transaction
from devnet.accounts import StoredAccount
from devnet.blocks import Round
from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.ledger import Pending
from devnet.mcblocks import SPARSE_STEP
from devnet.saved import Saved, SavedRound
from wrappers.cells import from_boc, to_boc

FORMAT = 1
_SCHEMA = Path(__file__).with_name("store.sql")
_META = ("format", "global_id", "now", "lt", "offset_seconds")


class Store:
    """`path`: the database file, created where it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            # One process only: a second one would write another history over this one.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA.read_text())
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DevnetError(f"cannot use {path}: {error}; is another devnet running on it?") from error
        self._queued = False

    def close(self) -> None:
        self._db.close()

    def load(self, global_id: int) -> Saved | None:
        """What was saved; None in a new file. Raises DevnetError for a file of another network or format."""
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if not meta:
            return None
        if meta["format"] != FORMAT or meta["global_id"] != global_id:
            raise DevnetError(
                f"{self._path} holds format {meta['format']}, global id {meta['global_id']}, not {FORMAT} and "
                f"{global_id}: use another state directory or remove this one"
            )
        rows = self._db.execute("SELECT account, shard FROM accounts")
        accounts = {account: StoredAccount.of(from_boc(shard), account) for account, shard in rows}
        transactions = [
            (decode_transaction(from_boc(boc), account), seqno)
            for account, boc, seqno in self._db.execute("SELECT account, boc, seqno FROM transactions ORDER BY lt")
        ]
        rounds, ids = [], {}
        for row in self._db.execute("SELECT * FROM rounds ORDER BY seqno"):
            seqno, now, start_lt, end_lt, m_root, m_file, s_root, s_file, master, shard = row
            ids[seqno] = (BlockId(seqno, m_root, m_file), BlockId(seqno, s_root, s_file))
            if master is not None:
                rounds.append(SavedRound(seqno, now, start_lt, end_lt, from_boc(master), from_boc(shard), *ids[seqno]))
        queue = [from_boc(boc) for (boc,) in self._db.execute("SELECT boc FROM queue ORDER BY position")]
        self._queued = bool(queue)
        return Saved(
            now=meta["now"],
            lt=meta["lt"],
            offset_seconds=meta["offset_seconds"],
            accounts={account: stored for account, stored in accounts.items() if stored is not None},
            transactions=transactions,
            rounds=rounds,
            ids=ids,
            queue=[Pending(cell, decode_message(cell)) for cell in queue],
        )

    def save(self, chain: DevnetChain, rounds: Iterable[Round]) -> None:
        """Append `rounds`, with the accounts changed since the last save and the queue as it is."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._append(chain, rounds)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        chain.changed.clear()

    def replace(self, chain: DevnetChain) -> None:
        """Write everything anew, after a revert."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for table in ("accounts", "transactions", "rounds", "queue", "meta"):
                self._db.execute(f"DELETE FROM {table}")
            chain.changed.update(chain.ledger.accounts)
            self._queued = False
            self._append(chain, chain.rounds.values())
            self._append_old(chain)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        chain.changed.clear()

    def _append(self, chain: DevnetChain, rounds: Iterable[Round]) -> None:
        for account in chain.changed:
            stored = chain.ledger.accounts.get(account)
            if stored is None:
                self._db.execute("DELETE FROM accounts WHERE account = ?", (account,))
            else:
                self._db.execute("REPLACE INTO accounts VALUES (?, ?)", (account, to_boc(stored.shard)))
        for sealed in rounds:
            self._write_round(sealed)
        newest = chain.head.master.seqno
        self._forget(newest - chain.kept_rounds)
        if self._queued or chain.ledger.queue:
            self._db.execute("DELETE FROM queue")
            for position, pending in enumerate(chain.ledger.queue):
                self._db.execute("INSERT INTO queue VALUES (?, ?)", (position, to_boc(pending.cell)))
            self._queued = bool(chain.ledger.queue)
        values = (FORMAT, chain.ledger.global_id, chain.ledger.now, chain.ledger.lt, chain.offset_seconds)
        self._db.executemany("REPLACE INTO meta VALUES (?, ?)", zip(_META, values, strict=True))

    def _write_round(self, sealed: Round) -> None:
        master, shard = sealed.master, sealed.shard
        ids = (master.root_hash, master.file_hash, shard.root_hash, shard.file_hash)
        cells = (to_boc(master.cell), to_boc(shard.cell))
        head = (master.seqno, master.now, shard.start_lt, shard.end_lt)
        self._db.execute("REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*head, *ids, *cells))
        rows = [(tx.account, tx.lt, shard.seqno, to_boc(tx.cell)) for tx in shard.transactions]
        self._db.executemany("INSERT OR REPLACE INTO transactions VALUES (?, ?, ?, ?)", rows)

    def _forget(self, seqno: int) -> None:
        """Of a round that is no longer kept: everything where it is empty, else all but its ids."""
        self._db.execute("UPDATE rounds SET master = NULL, shard = NULL WHERE seqno = ?", (seqno,))
        self._db.execute(
            "DELETE FROM rounds WHERE seqno = ? AND seqno % ? != 0 "
            "AND NOT EXISTS (SELECT 1 FROM transactions WHERE transactions.seqno = rounds.seqno)",
            (seqno, SPARSE_STEP),
        )

    def _append_old(self, chain: DevnetChain) -> None:
        """Transactions and sparse blocks of rounds that are no longer kept."""
        oldest = min(chain.rounds)
        ids: dict[int, tuple[BlockId | None, BlockId | None]] = {}
        for history in chain.ledger.transactions.values():
            for tx in history:
                block = chain.located[tx.hash]
                if block.seqno < oldest:
                    ids[block.seqno] = (None, block)
                    row = (tx.account, tx.lt, block.seqno, to_boc(tx.cell))
                    self._db.execute("REPLACE INTO transactions VALUES (?, ?, ?, ?)", row)
        for sparse in chain.sparse_ids():
            if sparse.seqno < oldest:
                ids[sparse.seqno] = (sparse, ids.get(sparse.seqno, (None, None))[1])
        for seqno, (master, shard) in ids.items():
            hashes = [part for block in (master, shard) for part in _hashes(block)]
            self._db.execute("REPLACE INTO rounds VALUES (?, 0, 0, 0, ?, ?, ?, ?, NULL, NULL)", (seqno, *hashes))


def _hashes(block: BlockId | None) -> tuple[bytes, bytes]:
    return (b"", b"") if block is None else (block.root_hash, block.file_hash)
