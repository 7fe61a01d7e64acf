"""The client's books in SQLite. A call that returns has its effect on disk (WAL, synchronous FULL), whole.

The store decides nothing: `protocol.account` says what an account becomes, and what belongs to one step (account,
request, receipts) is written in one transaction, so that kill -9 at any point loses no receipt and forgets no promise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from client.database import Database
from client.records import AccountOf, Escrow, Held, Payment, Request, StoredEvidence
from protocol.account import ClientAccount, Promise
from protocol.account_codec import account_from_bytes, account_to_bytes
from protocol.codec import Reader
from protocol.receipts import IssuedReceipt
from protocol.terms import read_terms, terms_to_bytes

FILE = "client.db"


class Store:
    """Open with `Store.open`, in a locked home. Writes raise HomeError when the disk takes nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    def open(cls, home: Path, *, network_id: bytes, registry: bytes, owner: bytes) -> Store:
        """Raises HomeError when the file belongs to another network or wallet, or is damaged."""
        return cls(Database.open(home / FILE, {"network_id": network_id, "registry": registry, "owner": owner}))

    def close(self) -> None:
        self._db.close()

    # ---- escrows

    def escrow(self) -> Escrow | None:
        """The one in use."""
        row = self._db.execute(
            "SELECT number, account, voucher_key, state FROM escrow WHERE state != 'closed' ORDER BY number DESC"
        ).fetchone()
        return None if row is None else Escrow(*row)

    def next_number(self) -> int:
        return int(self._db.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM escrow").fetchone()[0])

    def put_escrow(self, escrow: Escrow) -> None:
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO escrow VALUES (?, ?, ?, ?) ON CONFLICT (number)"
                " DO UPDATE SET state = excluded.state, voucher_key = excluded.voucher_key",
                (escrow.number, escrow.account, escrow.voucher_key, escrow.state),
            )

    # ---- payments

    def begin_payment(self, kind: str, message: bytes, start_lt: int, start_hash: bytes) -> int:
        with self._db.transaction():
            cursor = self._db.execute(
                "INSERT INTO payment (kind, message, start_lt, start_hash, state) VALUES (?, ?, ?, ?, 'sent')",
                (kind, message, start_lt, start_hash),
            )
        return int(cursor.lastrowid or 0)

    def end_payment(self, id_: int, *, landed: bool) -> None:
        with self._db.transaction():
            self._db.execute("UPDATE payment SET state = ? WHERE id = ?", ("landed" if landed else "expired", id_))

    def open_payments(self) -> list[Payment]:
        rows = self._db.execute(
            "SELECT id, kind, message, start_lt, start_hash FROM payment WHERE state = 'sent' ORDER BY id"
        )
        return [Payment(*row) for row in rows]

    # ---- accounts and requests

    def account(self, allotment: bytes, key: bytes) -> ClientAccount | None:
        row = self._db.execute("SELECT state FROM account WHERE allotment = ? AND key = ?", (allotment, key)).fetchone()
        return None if row is None else account_from_bytes(row[0])

    def accounts(self, allotment: bytes | None = None) -> list[tuple[AccountOf, ClientAccount]]:
        rows = self._db.execute(
            "SELECT allotment, key, escrow, epoch, node, node_epoch, state FROM account"
            " WHERE ?1 IS NULL OR allotment = ?1",
            (allotment,),
        )
        return [
            (AccountOf(row[0], row[1], row[2], int(row[3]), row[4], int(row[5])), account_from_bytes(row[6]))
            for row in rows
        ]

    def account_of(self, allotment: bytes, key: bytes) -> AccountOf | None:
        return next((of for of, _ in self.accounts(allotment) if of.key == key), None)

    def promise(self, of: AccountOf, account: ClientAccount, request: Request) -> None:
        """Before the voucher leaves: the account with its new promise, and the request that it is for."""
        with self._db.transaction():
            self._put_account(of, account)
            self._db.execute(
                "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    request.request_id,
                    request.allotment,
                    request.key,
                    request.sealed,
                    request.secret,
                    request.body,
                    request.model,
                    request.tier,
                    int(request.simulated),
                    request.outer,
                    request.expires_at,
                    int(time.time()),
                ),
            )

    def note_outer(self, request_id: bytes, outer: bytes) -> None:
        """A receipt in clear is here; its sealed part may never come."""
        with self._db.transaction():
            self._db.execute("UPDATE request SET outer = ? WHERE request_id = ?", (outer, request_id))

    def settle(
        self,
        of: AccountOf,
        before: ClientAccount,
        account: ClientAccount,
        receipts: Sequence[IssuedReceipt],
        *,
        answered: bytes | None = None,
        answer: bytes | None = None,
        dropped: bytes | None = None,
    ) -> None:
        """The account after `receipts`; their requests leave the flight. `before` still has their promises.

        `answered`: id of the request whose whole answer arrived, `answer` its bytes where texts are kept. `dropped`: id
        of a request that the enclave refused.
        """
        with self._db.transaction():
            self._put_account(of, account)
            for issued in receipts:
                promise = next((one for one in before.promises if one.request_id == issued.request_id), None)
                request = self.request(issued.request_id)
                if promise is not None and request is not None:
                    self._put_receipt(issued, promise, request, issued.request_id == answered, answer)
                    self._db.execute("DELETE FROM request WHERE request_id = ?", (issued.request_id,))
            if dropped is not None:
                self._db.execute("DELETE FROM request WHERE request_id = ?", (dropped,))
        self._db.empty_log()

    def _put_receipt(
        self, issued: IssuedReceipt, promise: Promise, request: Request, answered: bool, answer: bytes | None
    ) -> None:
        receipt = issued.signed.receipt
        kept = request.body is not None
        self._db.execute(
            "INSERT OR IGNORE INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                receipt.hash,
                request.allotment,
                request.key,
                receipt.seq,
                issued.to_bytes(),
                terms_to_bytes(promise.terms),
                str(promise.maximum_nano),
                promise.request,
                request.model,
                request.tier,
                int(request.simulated),
                int(answered),
                # The secret opens recorded traffic: it goes with the answer unless the texts are kept anyway.
                request.secret if kept else None,
                request.body,
                answer if kept and answered else None,
                int(time.time()),
            ),
        )

    def _put_account(self, of: AccountOf, account: ClientAccount) -> None:
        self._db.execute(
            "INSERT INTO account VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (allotment, key) DO UPDATE SET state = excluded.state",
            (
                of.allotment,
                of.key,
                of.escrow,
                str(of.epoch),
                of.node,
                str(of.node_epoch),
                account_to_bytes(account),
            ),
        )

    def request(self, request_id: bytes) -> Request | None:
        return next(iter(self._requests("WHERE request_id = ?", (request_id,))), None)

    def requests(self) -> list[Request]:
        """All in flight, oldest first."""
        return self._requests("ORDER BY made_at", ())

    def _requests(self, where: str, values: tuple[bytes, ...]) -> list[Request]:
        rows = self._db.execute(
            "SELECT request_id, allotment, key, sealed, secret, body, model, tier, simulated, expires_at, outer"
            f" FROM request {where}",
            values,
        )
        return [
            Request(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], bool(row[8]), row[9], row[10])
            for row in rows
        ]

    def forget_expired(self, before: int) -> None:
        """Requests that ended long before are not repeated: their secrets go. A late receipt still finds the rest."""
        with self._db.transaction():
            self._db.execute("UPDATE request SET sealed = x'', secret = x'' WHERE expires_at < ?", (before,))
        self._db.empty_log()

    # ---- receipts

    def mark_answered(self, hash_: bytes, answer: bytes) -> bool:
        """The answer to a receipt that came alone is here after all; False where there is no such receipt."""
        with self._db.transaction():
            cursor = self._db.execute(
                "UPDATE receipt SET answered = 1, answer = CASE WHEN body IS NULL THEN NULL ELSE ? END WHERE hash = ?",
                (answer, hash_),
            )
        return cursor.rowcount == 1

    def receipts(self, limit: int = 1_000_000) -> list[Held]:
        """Newest first."""
        rows = self._db.execute(
            "SELECT issued, allotment, key, terms, maximum_nano, request, model, tier, simulated, answered,"
            " received_at, secret, body, answer FROM receipt ORDER BY received_at DESC, seq DESC LIMIT ?",
            (limit,),
        )
        return [
            Held(
                IssuedReceipt.from_bytes(row[0]),
                row[1],
                row[2],
                read_terms(Reader(row[3], "stored terms")),
                int(row[4]),
                row[5],
                row[6],
                row[7],
                bool(row[8]),
                bool(row[9]),
                *row[10:],
            )
            for row in rows
        ]

    # ---- trust

    def put_evidence(self, evidence: StoredEvidence) -> None:
        """The first evidence that proved a key is kept; a renewal proves nothing more about its receipts."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
                (evidence.key, evidence.node, str(evidence.node_epoch), evidence.document, evidence.verified_at),
            )

    def evidence(self, key: bytes) -> StoredEvidence | None:
        row = self._db.execute(
            "SELECT key, node, node_epoch, document, verified_at FROM evidence WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else StoredEvidence(row[0], row[1], int(row[2]), row[3], row[4])

    def put_fault(
        self, node: bytes, key: bytes, cause: str, first: bytes | None = None, second: bytes | None = None
    ) -> None:
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO fault (node, key, at, cause, first, second) VALUES (?, ?, ?, ?, ?, ?)",
                (node, key, int(time.time()), cause, first, second),
            )

    def fault(self, node: bytes) -> str | None:
        """Why this node is not used any more."""
        row = self._db.execute("SELECT cause FROM fault WHERE node = ? ORDER BY id", (node,)).fetchone()
        return None if row is None else str(row[0])
