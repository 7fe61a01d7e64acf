"""The operator's receipt store: SQLite in the agent's directory, on disk when a call returns.

The store is the operator's claim to his money, so it runs with synchronous=FULL: a commit returns after fsync. SQL
lives in queries.sql, one named statement each.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


class StoreError(Exception):
    """The books cannot be opened or written. Names the file and the cure."""


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A signed receipt and the voucher that pays it. Hashes and keys 32 bytes, signatures 64, amounts nanoTON."""

    request_id: bytes
    key: bytes
    escrow: bytes
    allotment: bytes
    allotment_epoch: int
    seq: int
    receipt: bytes
    """Bag of cells of the outer receipt."""
    signature: bytes
    amount_nano: int
    cumulative_nano: int
    cap_nano: int
    acked_nano: int
    terms: bytes
    voucher_signature: bytes
    frame: bytes
    """The RECEIPT frame as it goes to the client."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request that was billed. `frames` is the ciphertext of its answer, None when it is no longer kept."""

    whole: bool
    """Whether the last frame is there."""
    allotment: bytes
    key: bytes
    seq: int
    frames: bytes | None


@dataclass(frozen=True, slots=True)
class Account:
    """All that one enclave key earned under one allotment: its latest receipt, its best voucher, what has landed."""

    key: bytes
    allotment: bytes
    escrow: bytes
    allotment_epoch: int
    landed_seq: int
    landed_nano: int
    closed: bool
    seq: int
    receipt: bytes
    signature: bytes
    cumulative_nano: int
    cap_nano: int
    acked_nano: int
    terms: bytes
    voucher_signature: bytes
    unlanded_since: int | None
    """Unix seconds of the oldest receipt that no landed claim covers; None when there is none that bills anything."""

    @property
    def owed_nano(self) -> int:
        """What the client's voucher covers and the chain has not paid."""
        return max(0, min(self.cumulative_nano, self.cap_nano) - self.landed_nano)


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    escrow: bytes
    allotment_epoch: int
    frame: bytes
    """The RECEIPT frame."""


@dataclass(frozen=True, slots=True)
class SignedRelease:
    allotted_nano: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Totals:
    receipts: int
    earned_nano: int
    landed_nano: int


def _load_queries() -> dict[str, str]:
    text = files("worker.agent").joinpath("queries.sql").read_text()
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


_SQL = _load_queries()


class Store:
    """One open store. Not thread-safe: use it from one thread (see `worker.agent.journal`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot open the receipt store {path}: {error}. Check that the directory is writable and has space; "
                "a damaged file must be restored from a copy, never deleted: it holds unclaimed receipts."
            ) from error

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}). "
                "Run that release."
            )
        if version == 0:
            schema = files("worker.agent").joinpath("schema.sql").read_text()
            self._db.executescript(f"BEGIN; {schema} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _run(self, name: str, **values: Any) -> sqlite3.Cursor:
        return self._db.execute(_SQL[name], values)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction around several writes; durable when it exits without an error."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def part(self) -> Iterator[None]:
        """One write inside a batch that fails alone."""
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO part")
            raise
        finally:
            self._db.execute("RELEASE part")

    # ---- writes: inside `batch`

    def add_receipt(self, row: ReceiptRow, frames: bytes, now: int) -> None:
        """A receipt, its voucher and the ciphertext of the answer up to and including the RECEIPT frame."""
        self._run(
            "advance_account",
            **_pick(row, "key", "allotment", "escrow", "allotment_epoch", "seq", "cumulative_nano", "receipt"),
            **_pick(row, "signature", "cap_nano", "acked_nano", "terms", "voucher_signature"),
        )
        self._run("add_request", **_pick(row, "request_id", "allotment", "key", "seq"), now=now)
        self._run("add_receipt", **_pick(row, "key", "allotment", "seq", "request_id", "amount_nano", "frame"), now=now)
        self._run("add_answer", request_id=row.request_id, frames=frames)

    def end_answer(self, request_id: bytes, frame: bytes) -> None:
        """The last frame of an answer whose receipt is stored."""
        self._run("end_answer", request_id=request_id, frame=frame)
        self._run("mark_answered", request_id=request_id)

    def drop_answers(self, before: int) -> None:
        """Forget ciphertexts older than `before` (unix seconds); receipts stay."""
        self._run("drop_answers", before=before)

    def mark_landed(self, key: bytes, allotment: bytes, *, seq: int, paid_nano: int, closed: bool) -> None:
        self._run(
            "mark_landed", key=key, allotment=allotment, landed_seq=seq, landed_nano=paid_nano, closed=int(closed)
        )

    def add_release(self, allotment: bytes, row_seqno: int, release: SignedRelease) -> None:
        self._run(
            "add_release",
            allotment=allotment,
            row_seqno=row_seqno,
            allotted_nano=release.allotted_nano,
            signature=release.signature,
        )

    def probe(self) -> None:
        """A write that changes nothing: it fails where the disk takes none."""
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    # ---- reads

    def request(self, request_id: bytes) -> KnownRequest | None:
        row = self._run("request", request_id=request_id).fetchone()
        if row is None:
            return None
        frames = None if row["frames"] is None else row["frames"] + (row["last"] or b"")
        return KnownRequest(row["state"] == "answered", row["allotment"], row["key"], row["seq"], frames)

    def accounts(self, *, all: bool = False) -> tuple[Account, ...]:
        """Accounts that are still owed something, most first; with `all` every account."""
        return tuple(_account(row) for row in self._run("accounts", all=int(all)))

    def owed_elsewhere(self, allotment: bytes, key: bytes) -> int:
        """nanoTON that keys other than `key` are owed under the allotment."""
        return int(self._run("owed_elsewhere", allotment=allotment, key=key).fetchone()["owed_nano"])

    def receipts_after(self, key: bytes, allotment: bytes, seq: int, limit: int) -> tuple[KeptReceipt, ...]:
        """Receipts of an account, oldest first."""
        rows = self._run("receipts_after", key=key, allotment=allotment, seq=seq, limit=limit)
        return tuple(KeptReceipt(row["escrow"], row["allotment_epoch"], row["frame"]) for row in rows)

    def is_released(self, allotment: bytes, row_seqno: int) -> bool:
        """Whether a release was signed for the row at `row_seqno`, or later: then what shows it so is out of date."""
        return self._run("is_released", allotment=allotment, row_seqno=row_seqno).fetchone() is not None

    def release(self, allotment: bytes, row_seqno: int) -> SignedRelease | None:
        row = self._run("release", allotment=allotment, row_seqno=row_seqno).fetchone()
        return None if row is None else SignedRelease(row["allotted_nano"], row["signature"])

    def totals(self) -> Totals:
        row, landed = self._run("totals").fetchone(), self._run("landed_total").fetchone()
        return Totals(row["receipts"], row["earned_nano"], landed["landed_nano"])

    def close(self) -> None:
        self._db.close()


def _account(row: sqlite3.Row) -> Account:
    values: dict[str, Any] = {name: row[name] for name in Account.__slots__}
    return Account(**{**values, "closed": bool(row["closed"])})


def _pick(row: ReceiptRow, *names: str) -> Mapping[str, Any]:
    return {name: getattr(row, name) for name in names}
