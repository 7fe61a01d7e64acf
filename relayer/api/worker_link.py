"""One authenticated connection to one node's agent: streams multiplexed on it, questions asked over it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientConnectionError, web

from protocol import link
from protocol.errors import Code, WireError
from protocol.link import Kind, Reason
from protocol.offer import NodeOffer
from relayer.api.streams import Stream
from relayer.errors import Refusal

DRAIN_SECONDS = 20.0
"""An agent that does not read for so long is as good as gone."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An offer and whether the chain confirms it. `error` says why not."""

    offer: NodeOffer
    json: Mapping[str, Any]
    error: Reason | None

    @property
    def live(self) -> bool:
        return self.error is None


class WorkerLink:
    """Made when the handshake is over. The hub reads messages and hands them to `deliver`."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        node: bytes,
        max_in_flight: int,
        max_message_bytes: int,
        software: str,
        connected_at: int,
        stream_buffer_bytes: int,
    ) -> None:
        self.node = node
        self.max_in_flight = max_in_flight
        self.max_request_bytes = max_message_bytes - link.STREAM_HEADER_BYTES
        self.software = software
        self.connected_at = connected_at
        self.offered: Offered | None = None
        self._socket = socket
        self._stream_buffer_bytes = stream_buffer_bytes
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._asks: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ask_numbers = itertools.count(1)
        self._sending = asyncio.Lock()
        self.closed = False

    @property
    def in_flight(self) -> int:
        return len(self._streams)

    async def send(self, message: bytes) -> None:
        """Raises Refusal(NODE_GONE) when the link is closed or the agent does not read."""
        try:
            # A lock keeps one message whole on the wire and the waiters in order.
            async with asyncio.timeout(DRAIN_SECONDS), self._sending:
                await self._socket.send_bytes(message)
        except (TimeoutError, ClientConnectionError, ConnectionError, RuntimeError) as error:
            raise Refusal(Code.NODE_GONE, "its agent is not connected any more", retry_after=2) from error

    async def open(self, request: bytes) -> Stream:
        if self.closed:
            raise Refusal(Code.NODE_GONE, "its agent is not connected any more", retry_after=2)
        if self.in_flight >= self.max_in_flight:
            raise Refusal(Code.NODE_BUSY, f"{self.max_in_flight} requests are in flight there", retry_after=1)
        if len(request) > self.max_request_bytes:
            # One message too long would cost the agent the link, and with it everybody else's answers.
            raise Refusal(Code.TOO_LARGE, f"this node takes {self.max_request_bytes} bytes at most")
        stream = Stream(next(self._numbers), buffer_bytes=self._stream_buffer_bytes)
        self._streams[stream.number] = stream
        try:
            await self.send(link.stream_message(Kind.OPEN, stream.number, request))
        except BaseException:
            self._streams.pop(stream.number, None)
            raise
        return stream

    async def cancel(self, stream: Stream) -> None:
        """Tells the agent that nobody reads the answer any more; its receipt is still wanted."""
        await self.send(link.stream_message(Kind.CANCEL, stream.number))

    def forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)

    async def ask(self, kind: Kind, body: Mapping[str, Any], seconds: float = link.ASK_SECONDS) -> dict[str, Any]:
        """Sends a question and waits for its answer. Raises Refusal when there is none."""
        number = next(self._ask_numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asks[number] = future
        try:
            await self.send(link.json_message(kind, {"ask": number, **body}))
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise Refusal(Code.TIMEOUT, "the node's agent did not answer", retry_after=5) from error
        finally:
            self._asks.pop(number, None)

    def answer(self, body: dict[str, Any]) -> bool:
        """Gives an answer to whoever asked; False when nobody did or nobody waits any more."""
        number = body.get("ask")
        future = self._asks.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            return False
        future.set_result(body)
        return True

    def frames(self, message: bytes) -> None:
        """FRAMES. Frames of a stream that is over crossed its end on the wire and are dropped."""
        stream = self._streams.get(link.stream_of(message))
        if stream is not None:
            stream.feed(message[link.STREAM_HEADER_BYTES :])

    def end(self, message: bytes) -> None:
        """END: nothing more comes for a cancelled stream."""
        stream = self._streams.get(link.stream_of(message))
        if stream is not None:
            stream.end()

    def lost(self, detail: str) -> None:
        """The connection is over: everything that waits on it hears so at once."""
        self.closed = True
        error = WireError.of(Code.NODE_GONE, detail)
        for stream in tuple(self._streams.values()):
            stream.fail(error)
        for future in tuple(self._asks.values()):
            if not future.done():
                future.set_exception(Refusal(Code.NODE_GONE, detail, retry_after=2))

    async def close(self, code: link.Close, reason: Reason) -> None:
        with contextlib.suppress(Refusal):  # it may be gone already, which is what closing is for
            await self.send(link.json_message(Kind.GOODBYE, reason.to_json()))
        await self._socket.close(code=code, message=reason.code.encode())
