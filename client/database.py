"""The client's SQLite file: made for one network and wallet, whole transactions on disk, no secret left in its log."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from client.errors import HomeError

VERSION = b"1"
BUSY_MILLISECONDS = 5000
log = logging.getLogger("cocoon.client")


class Database:
    """Open with `Database.open`, in a locked home. A transaction raises HomeError when the disk takes nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path, made_for: Mapping[str, bytes]) -> Database:
        """Raises HomeError when the file was made for something else, or is damaged."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite itself would let the umask decide
            connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            database = cls(connection)
            database._prepare({"version": VERSION, **made_for}, path)
            database.empty_log()
        except sqlite3.Error as error:
            raise HomeError(
                f"{path} cannot be used ({error})", "restore it from a backup, or use a new home"
            ) from error
        return database

    def _prepare(self, facts: Mapping[str, bytes], path: Path) -> None:
        with self.transaction():
            if not self.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in _statements():
                    self.execute(statement)
                self._connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
            found = dict(self.execute("SELECT name, value FROM meta").fetchall())
        for name, value in facts.items():
            if found.get(name) != value:
                raise HomeError(
                    f"{path} was made for another {name.replace('_', ' ')}",
                    "use the network and wallet that it was made with, or another home",
                )

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it is on disk afterwards, or nothing."""
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite has rolled back by itself when the disk was full
                self.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise HomeError(
                    f"the client's books cannot be written ({error})",
                    "make room on the disk, check the folder's rights, and ask again; nothing that was on disk is lost",
                ) from error
            raise

    def empty_log(self) -> None:
        """Deleted rows are zeroed in the database, but every page as it was stands in the write-ahead log until that is
        written back and cut off: with it a thief of the disk would open recorded traffic."""
        try:
            self.execute("PRAGMA busy_timeout = 0")  # requests do not wait for whoever else reads the file
            busy, _, _ = self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        except sqlite3.Error as error:  # what was committed stays so, and the next one tries again
            log.warning("the log of the client's books cannot be emptied (%s): it keeps old secrets till it can", error)
            return
        if busy:
            log.warning("the client's books are read by another process: their log keeps secrets till it ends")


def _statements() -> list[str]:
    script = files("client").joinpath("schema.sql").read_text(encoding="utf-8")
    lines = (line for line in script.splitlines() if not line.startswith("--"))
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]
