"""One thread owns the database; facts that wait together are committed together, so that one fsync serves them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relayer.core.effects import Effect
from relayer.core.facts import Fact
from relayer.store.store import Entry, Mark, Recorded, Store, StoreError

T = TypeVar("T")
MAX_WAITING = 10_000
MAX_BATCH = 256


class Writer:
    """`on_effects` hears of every effect that was opened, after its transaction is on disk."""

    def __init__(self, store: Store, on_effects: Callable[[tuple[Effect, ...]], None]) -> None:
        self._store = store
        self._on_effects = on_effects
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relayer-store")
        self._queue: asyncio.Queue[tuple[tuple[Entry, ...], asyncio.Future[tuple[Recorded, ...]]]] = asyncio.Queue(
            MAX_WAITING
        )
        self._unwatched: set[asyncio.Task[Recorded]] = set()
        self.failure: BaseException | None = None
        """Why the last write failed, until one succeeds."""

    async def record(self, fact: Fact | None, *, cursor: Mark | None = None, payload: bytes | None = None) -> Recorded:
        """Returns when it is on disk. Raises StoreError."""
        return (await self.record_many((Entry(fact, cursor, payload),)))[0]

    async def record_many(self, entries: tuple[Entry, ...]) -> tuple[Recorded, ...]:
        """The entries land together or not at all. Returns when they are on disk."""
        future: asyncio.Future[tuple[Recorded, ...]] = asyncio.get_running_loop().create_future()
        await self._queue.put((entries, future))
        return await future

    def note(self, fact: Fact) -> None:
        """Records without anybody waiting for it: for facts that no money hangs on."""
        task = asyncio.ensure_future(self.record(fact))
        self._unwatched.add(task)
        task.add_done_callback(self._noted)

    def _noted(self, task: asyncio.Task[Recorded]) -> None:
        self._unwatched.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()

    async def read(self, query: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, query, self._store)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < MAX_BATCH and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            await self._write(waiting)

    async def _write(self, waiting: list[tuple[tuple[Entry, ...], asyncio.Future[tuple[Recorded, ...]]]]) -> None:
        loop = asyncio.get_running_loop()
        together = [entry for entries, _ in waiting for entry in entries]
        try:
            recorded = await loop.run_in_executor(self._thread, self._store.record_many, together)
        except Exception as cause:
            error = StoreError(f"the database does not take facts: {cause}; check the disk's space and rights")
            error.__cause__ = cause
            if len(waiting) > 1:
                # One bad entry must not take down those that happened to wait with it.
                for one in waiting:
                    await self._write([one])
                return
            self.failure = error
            if not waiting[0][1].done():
                waiting[0][1].set_exception(error)
            return
        self.failure = None
        at = 0
        for entries, future in waiting:
            if not future.done():
                future.set_result(recorded[at : at + len(entries)])
            at += len(entries)
        opened = tuple(effect for one in recorded for effect in one.opened)
        if opened:
            self._on_effects(opened)

    async def close(self) -> None:
        """Writes what waits, then closes the database. Call it when `run` is cancelled."""
        waiting = []
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        if waiting:
            await self._write(waiting)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()
