"""A blocking producer thread to an asyncio consumer, with a bound on what lies between them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class Bridge:
    """`push` runs in the producer's thread, everything else on the event loop."""

    def __init__(self, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._room = threading.Semaphore(limit)
        self._closed = threading.Event()

    def push(self, item: Any) -> bool:
        """Hand one item over, waiting for room. Returns True when the consumer has gone and the producer must stop."""
        self._room.acquire()
        if self._closed.is_set():
            # Pass the wake-up on: the producer may push once more before it notices.
            self._room.release()
            return True
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            # The loop is closed: nobody can take the item, so the producer stops.
            return True
        return False

    def end(self, last: Any) -> None:
        """The producer's last item, which needs no room. Called on the event loop."""
        self._queue.put_nowait(last)

    async def pull(self) -> Any:
        item = await self._queue.get()
        self._room.release()
        return item

    def close(self) -> None:
        """The consumer takes no more. Idempotent."""
        self._closed.set()
        self._room.release()
