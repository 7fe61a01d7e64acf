"""Two streams joined end to end: bytes pass unread, in both directions, until either side ends."""

from __future__ import annotations

import asyncio
import contextlib

PIECE_BYTES = 64 << 10
CLOSE_SECONDS = 2.0
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def join(one: Stream, other: Stream) -> None:
    """Returns when one side has ended and what it sent has gone out. Closes both. Never raises for a broken side."""
    ways = [asyncio.ensure_future(_pass(one[0], other[1])), asyncio.ensure_future(_pass(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await asyncio.gather(close(one[1]), close(other[1]))


async def close(writer: asyncio.StreamWriter) -> None:
    """What is queued still goes out, unless the other side does not read it."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
