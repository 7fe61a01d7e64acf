"""One answer on its way to a relayer.

A stored answer is all there at once, and relayers hold little for a client that reads slowly: it goes at a pace that
clients can follow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from protocol import link
from protocol.link import Kind
from worker.agent.streams import Answering, Sink

PACED_BYTES_PER_SECOND = 4 << 20


class Carrier(Protocol):
    """The connection that the stream is part of."""

    def post(self, message: bytes) -> None: ...

    def serves(self, number: int, stream: PacedStream) -> bool:
        """Whether the number still means this stream: another connection may have given it away anew."""

    def forget(self, number: int) -> bool:
        """Free the number; whether it was in use."""


class PacedStream(Sink):
    """One answer under one stream number. Once it is `cancelled`, only its receipt is wanted."""

    def __init__(self, carrier: Carrier, number: int) -> None:
        self._carrier = carrier
        self._number = number
        self._waiting: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self.answering: Answering | None = None
        self.cancelled = False

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        if not self._carrier.serves(self._number, self):
            return
        if self.cancelled and not receipt:
            if ends:
                self.end()
            return
        self._waiting.extend(link.frames_messages(self._number, frames))
        if self.cancelled:
            self.flush()
            self.end()
            return
        self._over = ends
        if self._timer is None:
            self._advance()

    def _advance(self) -> None:
        self._timer = None
        if not self._carrier.serves(self._number, self):
            return
        message = self._waiting.popleft()
        self._carrier.post(message)
        if self._waiting:
            pause = len(message) / PACED_BYTES_PER_SECOND
            self._timer = asyncio.get_running_loop().call_later(pause, self._advance)
        elif self._over:
            self._carrier.forget(self._number)

    def flush(self) -> None:
        """Nobody reads along any more: what waits goes at once, for the receipt that may be in it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._carrier.post(self._waiting.popleft())
        if self._over:
            self._carrier.forget(self._number)

    def end(self) -> None:
        if self._carrier.forget(self._number):
            self._carrier.post(link.stream_message(Kind.END, self._number))
