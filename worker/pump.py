"""Two streams joined end to end: bytes pass unread, in both directions, until either side ends."""

from __future__ import annotations

import asyncio
import contextlib
import time

PIECE_BYTES = 64 << 10
CLOSE_SECONDS = 2.0
IDLE_SECONDS = 300.0
"""Longer than a model takes to its first token; a connection that nobody uses must not be held for ever."""
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def join(one: Stream, other: Stream, idle_seconds: float = IDLE_SECONDS) -> None:
    """Returns when one side has ended and what it sent has gone out, or nothing passed for `idle_seconds`.

    Closes both. Never raises for a broken side.
    """
    activity = _Activity()
    ways = [
        asyncio.ensure_future(_pass(one[0], other[1], activity)),
        asyncio.ensure_future(_pass(other[0], one[1], activity)),
        asyncio.ensure_future(activity.ceased(idle_seconds)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await asyncio.gather(close(one[1]), close(other[1]))


class _Activity:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def seen(self) -> None:
        self._last = time.monotonic()

    async def ceased(self, idle_seconds: float) -> None:
        """Returns when nothing was seen for that long."""
        while True:
            left = self._last + idle_seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)


async def close(writer: asyncio.StreamWriter) -> None:
    """What is queued still goes out, unless the other side does not read it."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, activity: _Activity) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE_BYTES):
            activity.seen()
            writer.write(data)
            await writer.drain()
            activity.seen()
