"""The store behind the event loop: one thread, and one fsync for all that waits.

A commit costs an fsync, so writes that arrive during one are taken together into the next. Each caller still waits
until its own write is on disk, and fails alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from worker.agent.store import Store, StoreError

T = TypeVar("T")
_Write = Callable[[Store], None]
MAX_BATCH = 512


class Journal:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="receipts")
        self._waiting: list[tuple[_Write, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self.failed = False
        """Whether the disk refused a write, and `check` has not found it well since."""

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Raises StoreError."""
        return cls(Store(path))

    async def write(self, write: _Write) -> None:
        """Run `write` in a transaction; on disk when this returns. Raises StoreError, or what `write` raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain())
        try:
            await done
        except sqlite3.IntegrityError:
            raise  # what was written is wrong, not the disk
        except sqlite3.Error as error:
            self.failed = True
            raise _trouble(error) from error

    async def check(self) -> None:
        """After a failed write: raises StoreError while the disk takes none."""
        if self.failed:
            await self.write(Store.probe)
            self.failed = False

    async def read(self, read: Callable[[Store], T]) -> T:
        """Raises StoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, read, self._store)
        except sqlite3.Error as error:
            raise _trouble(error) from error

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer
        self._thread.shutdown(wait=True)
        self._store.close()

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            loop = asyncio.get_running_loop()
            try:
                failures = await loop.run_in_executor(self._thread, self._commit, [write for write, _ in batch])
            except Exception as error:  # the transaction as a whole failed: every caller must know
                failures = [error] * len(batch)
            for (_, done), failure in zip(batch, failures, strict=True):
                if done.cancelled():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _commit(self, writes: list[_Write]) -> list[Exception | None]:
        failures: list[Exception | None] = []
        with self._store.batch():
            for write in writes:
                try:
                    with self._store.part():
                        write(self._store)
                    failures.append(None)
                except Exception as error:  # handed to the one caller whose write it was
                    failures.append(error)
        return failures


def _trouble(error: sqlite3.Error) -> StoreError:
    return StoreError(
        f"the receipt store cannot be used: {error}. Make room on the disk and check the folder's rights; the agent "
        "goes on by itself, and nothing that was on disk is lost"
    )
