"""The only module that speaks to SQLite. A fact, the states it changes, its effects, its cursor: one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayer.core import effects as effects_
from relayer.core import facts as facts_
from relayer.core.effects import Effect
from relayer.core.facts import Fact, ReceiptSeen
from relayer.core.machine import Machine, State, Subject, step, subjects
from relayer.core.policy import SettlePolicy
from relayer.core.request import Request
from relayer.core.settlement import Settlement
from relayer.core.tally import Tally
from relayer.store.codec import decode, decode_effect, decode_fact, encode
from relayer.store.queries import migrations, queries

BUSY_SECONDS = 10


class StoreError(Exception):
    """The database cannot be used. Says why, and the cure."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an account's history was read to."""

    account: bytes
    lt: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact to record. `payload`: the receipt's own bytes, kept beside ReceiptSeen for clients that lost them."""

    fact: Fact | None
    cursor: Mark | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    new: bool
    opened: tuple[Effect, ...] = ()
    closed: tuple[str, ...] = ()
    """Keys of the effects that the fact closed."""


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    allotment: bytes
    key: bytes
    seq: int
    node: bytes
    cumulative_nano: int
    payload: bytes


def _nothing(point: str) -> None:
    """Stands where tests cut the power."""


class Store:
    """`at_point` is called with the name of each place between two writes; it exists so that a test can die there."""

    def __init__(
        self, path: Path | str, *, policy: SettlePolicy | None = None, at_point: Callable[[str], None] = _nothing
    ) -> None:
        self.policy = policy or SettlePolicy()
        self._point = at_point
        self._sql = queries()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            # FULL: a receipt that was passed on to a client must survive a power cut, not only a crash of ours.
            for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on"):
                self._db.execute(f"pragma {pragma}")
            self._migrate()
        except sqlite3.Error as error:
            raise StoreError(
                f"the database {path} does not open: {error}; check the path, its rights and disk"
            ) from error

    def close(self) -> None:
        self._db.close()

    def _migrate(self) -> None:
        have = int(self._db.execute("pragma user_version").fetchone()[0])
        newest = len(migrations())
        if have > newest:
            raise StoreError(
                f"the database has schema version {have}, this relayer knows {newest}; run the newer relayer"
            )
        for version, script in migrations()[have:]:
            self._db.executescript(f"begin immediate;\n{script}\npragma user_version={version};\ncommit;")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            yield
            self._db.execute("commit")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(f"the database takes nothing: {error}; check the disk's space and rights") from error
            raise

    def _run(self, name: str, parameters: Mapping[str, Any] | None = None) -> sqlite3.Cursor:
        return self._db.execute(self._sql[name], parameters or {})

    def bind(self, name: str, value: str) -> None:
        """Ties the database to `value` (the network id) for good. Raises StoreError when it is tied to another."""
        with self._transaction():
            row = self._run("get_meta", {"name": name}).fetchone()
            if row is not None and row[0] != value:
                raise StoreError(
                    f"the database belongs to {name} {row[0]}, not to {value}; give each network its own data directory"
                )
            self._run("put_meta", {"name": name, "value": value})

    def record(self, fact: Fact | None, *, cursor: Mark | None = None, payload: bytes | None = None) -> Recorded:
        return self.record_many((Entry(fact, cursor, payload),))[0]

    def record_many(self, entries: Sequence[Entry]) -> tuple[Recorded, ...]:
        """All of it or nothing, in order. A fact that is known already changes nothing; its cursor still moves."""
        with self._transaction():
            return tuple(self._record(entry) for entry in entries)

    def _record(self, entry: Entry) -> Recorded:
        recorded = Recorded(new=False)
        if entry.fact is not None:
            recorded = self._fact(entry.fact, entry.payload)
        if entry.cursor is not None:
            mark = entry.cursor
            self._run("put_cursor", {"account": mark.account, "lt": mark.lt, "hash": mark.hash})
            self._point("cursor")
        return recorded

    def _fact(self, fact: Fact, payload: bytes | None) -> Recorded:
        key, at = facts_.key_of(fact), fact.at
        row = {"key": key, "kind": type(fact).__name__, "body": encode(fact), "at": at}
        if self._run("insert_fact", row).rowcount == 0:
            return Recorded(new=False)
        self._point("fact")
        if isinstance(fact, ReceiptSeen) and payload is not None:
            self._receipt(fact, payload)
        opened: list[Effect] = []
        nodes: set[bytes] = set()
        for subject in subjects(fact):
            before = self.state(subject)
            after, new = step(subject, before, fact, self.policy)
            if after is not None and after != before:
                self._put(subject, after)
            opened.extend(new)
            if subject.machine is Machine.SETTLEMENT:
                nodes.add(subject.id)
        self._point("state")
        closed = tuple(key_ for node in nodes for key_ in self._close(fact, key, node, at))
        for effect in opened:
            self._open(effect, at)
        self._point("outbox")
        return Recorded(True, tuple(opened), closed)

    def _close(self, fact: Fact, key: str, node: bytes, at: int) -> Iterator[str]:
        for effect_key, kind, body in self._run("open_effects_of_node", {"node": node}).fetchall():
            if effects_.closes(fact, decode_effect(kind, body)):
                self._run("close_effect", {"key": effect_key, "at": at, "fact": key})
                yield effect_key

    def _open(self, effect: Effect, at: int) -> None:
        row = {"key": effects_.key_of(effect), "kind": type(effect).__name__, "node": effect.node}
        self._run("open_effect", row | {"body": encode(effect), "at": at})

    def _receipt(self, fact: ReceiptSeen, payload: bytes) -> None:
        row = {"allotment": fact.allotment, "enclave_key": fact.key, "seq": fact.seq, "hash": fact.hash}
        row |= {"escrow": fact.escrow, "node": fact.node, "cumulative_nano": fact.cumulative_nano}
        self._run("insert_receipt", row | {"payload": payload, "at": fact.at})

    def _put(self, subject: Subject, state: State) -> None:
        match state:
            case Request():
                row: dict[str, Any] = {"status": state.status, "node": state.node, "escrow": state.escrow}
                self._run("put_request", row | {"id": subject.id, "ended_at": state.ended_at, "body": encode(state)})
            case Tally():
                row = {"allotment": state.allotment, "enclave_key": state.key, "node": state.node}
                row |= {"escrow": state.escrow, "unclaimed_nano": state.unclaimed_nano}
                self._run("put_tally", row | {"body": encode(state)})
            case Settlement():
                self._run("put_settlement", {"id": subject.id, "phase": state.phase, "body": encode(state)})

    def state(self, subject: Subject) -> State | None:
        parameters: dict[str, bytes] = {"id": subject.id}
        if subject.machine is Machine.TALLY:
            parameters = {"allotment": subject.id[:32], "enclave_key": subject.id[32:]}
        row = self._run(f"get_{subject.machine}", parameters).fetchone()
        return None if row is None else decode(_STATES[subject.machine], row[0])

    def settlement(self, node: bytes) -> Settlement:
        state = self.state(Subject(Machine.SETTLEMENT, node))
        return state if isinstance(state, Settlement) else Settlement(node)

    def settlements(self) -> tuple[Settlement, ...]:
        return tuple(decode(Settlement, body) for (body,) in self._run("all_settlements"))

    def unclaimed(self) -> tuple[Tally, ...]:
        return tuple(decode(Tally, body) for (body,) in self._run("unclaimed_tallies"))

    def tallies(self, escrow: bytes | None = None) -> tuple[Tally, ...]:
        name, parameters = ("all_tallies", {}) if escrow is None else ("tallies_of_escrow", {"escrow": escrow})
        return tuple(decode(Tally, body) for (body,) in self._run(name, parameters))

    def escrows_with_receipts(self) -> tuple[bytes, ...]:
        return tuple(escrow for (escrow,) in self._run("escrows_with_receipts"))

    def requests(self, *, open_only: bool = False) -> tuple[Request, ...]:
        name = "open_requests" if open_only else "all_requests"
        return tuple(decode(Request, body) for (body,) in self._run(name))

    def pending(self) -> tuple[Effect, ...]:
        """Open effects, oldest first."""
        return tuple(decode_effect(kind, body) for _, kind, body in self._run("open_effects"))

    def outbox(self) -> tuple[tuple[Effect, bool], ...]:
        """Every effect with whether it is closed."""
        return tuple((decode_effect(kind, body), bool(closed)) for _, kind, body, closed in self._run("all_effects"))

    def facts(self) -> tuple[Fact, ...]:
        return tuple(decode_fact(kind, body) for kind, body in self._run("all_facts"))

    def cursor(self, account: bytes) -> Mark | None:
        row = self._run("get_cursor", {"account": account}).fetchone()
        return None if row is None else Mark(account, row[0], row[1])

    def receipts(
        self, escrow: bytes, *, allotment: bytes | None, key: bytes | None, after: int, limit: int
    ) -> tuple[StoredReceipt, ...]:
        """By seq; with both allotment and key those after `after`, else the escrow's from the beginning."""
        parameters: dict[str, Any] = {"escrow": escrow, "limit": limit}
        name = "receipts_of_escrow"
        if allotment is not None and key is not None:
            name, parameters = (
                "receipts_after",
                parameters | {"allotment": allotment, "enclave_key": key, "after": after},
            )
        return tuple(StoredReceipt(*row) for row in self._run(name, parameters))

    def next_ask(self) -> int:
        """A number that no ask had before, also across restarts."""
        return int(self._run("largest_ask").fetchone()[0]) + 1

    def prune(self, before: int) -> None:
        """Forgets what ended before that time and owes nothing. States of tallies and settlements stay."""
        with self._transaction():
            for name in ("prune_facts", "prune_requests", "prune_receipts", "prune_outbox"):
                self._run(name, {"before": before})


_STATES: dict[Machine, type[State]] = {
    Machine.REQUEST: Request,
    Machine.TALLY: Tally,
    Machine.SETTLEMENT: Settlement,
}
