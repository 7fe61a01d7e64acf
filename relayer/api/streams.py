"""One answer on its way from a worker to a client: headers are read, data is not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.errors import Code, ProtocolError, WireError
from protocol.frames import FINISHED, HEADER_BYTES, FrameType, Phase, advance, parse_header

DEFAULT_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole frames as they came. `receipts` are the payloads of the RECEIPT frames among them, in order."""

    data: bytes = field(repr=False)
    receipts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the client gets no more."""

    error: WireError
    drainable: bool = False
    """The worker is well: its receipt may still come."""


class Stream:
    """Filled by the link's reader, emptied by the client's handler; bounded, never blocks the reader.

    One slow client must not hold up the others on the same link, so an overflow ends its stream instead of stopping
    the link: the client repeats its request id and gets the stored answer.
    """

    def __init__(self, number: int, *, buffer_bytes: int = DEFAULT_BUFFER_BYTES) -> None:
        self.number = number
        self.phase = Phase.START
        self._limit = buffer_bytes
        self._buffered = 0
        self._chunks: deque[Chunk] = deque()
        self._wake = asyncio.Event()
        self._fault: Fault | None = None
        self._over = False
        self._receipts_only = False
        self.on_overflow: Callable[[], None] | None = None
        """Called when the client reads too slowly: it unblocks whoever is writing to it."""

    @property
    def finished(self) -> bool:
        """Nothing more goes to the client."""
        return self._over or self._fault is not None or self.phase in FINISHED

    @property
    def may_bring_receipts(self) -> bool:
        """Whether it is worth listening on when the client is gone."""
        if self._over or self.phase in FINISHED:
            return any(chunk.receipts for chunk in self._chunks)
        return self._fault is None or self._fault.drainable

    def feed(self, data: bytes) -> None:
        """Takes the frames of one message. A worker that breaks the protocol ends the stream, not the link."""
        if self._over or self.phase in FINISHED or (self._fault is not None and not self._fault.drainable):
            return
        receipts: list[bytes] = []
        at, end = 0, len(data)
        try:
            while at < end:
                if end - at < HEADER_BYTES:
                    raise _cut()
                kind, length = parse_header(data, at)
                following = at + HEADER_BYTES + length
                if following > end:
                    raise _cut()
                self.phase = advance(self.phase, kind)
                if kind is FrameType.RECEIPT:
                    receipts.append(data[at + HEADER_BYTES : following])
                at = following
        except ProtocolError as error:
            self.fail(WireError.of(Code.NODE_GONE, f"the worker broke the protocol ({error.cause})"))
            return
        if self._receipts_only or self._fault is not None:
            data = b""
        if data or receipts:
            self._push(Chunk(data, tuple(receipts)))

    def _push(self, chunk: Chunk) -> None:
        if self._buffered + len(chunk.data) > self._limit:
            chunk = Chunk(b"", chunk.receipts)
            self._fault = Fault(WireError.of(Code.TIMEOUT, "this client read too slowly"), drainable=True)
            if self.on_overflow is not None:
                self.on_overflow()
        self._buffered += len(chunk.data)
        self._chunks.append(chunk)
        self._wake.set()

    def fail(self, error: WireError) -> None:
        """The stream breaks here; what was buffered is still delivered before the error."""
        if not self.finished:
            self._fault = Fault(error)
        self._wake.set()

    def end(self) -> None:
        self._over = True
        self._wake.set()

    def keep_receipts_only(self) -> None:
        """The client is gone: data is dropped, receipts are still wanted."""
        self._receipts_only = True
        kept = [Chunk(b"", chunk.receipts) for chunk in self._chunks if chunk.receipts]
        self._chunks = deque(kept)
        self._buffered = 0
        if self._fault is not None and self._fault.drainable:
            self._fault = None

    async def next(self, seconds: float) -> Chunk | Fault | None:
        """The next frames, or why there are none; None after the end. Raises TimeoutError after so much silence."""
        while not self._chunks:
            if self._fault is not None:
                return self._fault
            if self.finished:
                return None
            self._wake.clear()
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk.data)
        return chunk


def _cut() -> ProtocolError:
    return ProtocolError("a frame spans two messages", "send whole frames")
