"""The link between the enclave and the operator's agent: whole messages over one unix socket, one connection.

u32 length (big-endian), u8 kind, body. Bodies are the fields of the message in order (`worker.fields`).
"""

from __future__ import annotations

import asyncio

from worker import job_messages, messages
from worker.fields import LinkError, Message, Reader

MAX_MESSAGE_BYTES = 5 << 20
CLOSE_SECONDS = 2.0


class LinkClosed(LinkError):
    """The other process is gone."""


FROM_AGENT = messages.FROM_AGENT + job_messages.FROM_AGENT
FROM_ENCLAVE = messages.FROM_ENCLAVE + job_messages.FROM_ENCLAVE
_KINDS = {message.KIND: message for message in FROM_AGENT + FROM_ENCLAVE}


def encode(message: Message) -> bytes:
    """The message as it travels, length first. Raises LinkError when it is over the bounds."""
    body = bytes([message.KIND]) + message.body()
    if len(body) > MAX_MESSAGE_BYTES:
        raise LinkError(f"{type(message).__name__} of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(4, "big") + body


def decode(data: bytes) -> Message:
    """The message in one packet without its length. Raises LinkError on anything that `encode` does not make."""
    reader = Reader(data)
    kind = reader.take(1)[0]
    if kind not in _KINDS:
        raise LinkError(f"unknown message kind {kind}")
    message: Message = _KINDS[kind].read(reader)
    reader.end()
    return message


class Link:
    """Whole messages over a stream pair. `accepts` lists what the other side may say."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepts: tuple[type[Message], ...]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._accepts = accepts

    async def receive(self) -> Message:
        """The next message. Raises LinkClosed at the end, LinkError on a message that is out of place."""
        try:
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            if not 1 <= length <= MAX_MESSAGE_BYTES:
                raise LinkError(f"message of {length} bytes, allowed are 1 to {MAX_MESSAGE_BYTES}")
            message = decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise LinkClosed("the other process closed the link") from error
        if not isinstance(message, self._accepts):
            raise LinkError(f"{type(message).__name__} came from the wrong side")
        return message

    def post(self, message: Message) -> None:
        """Queue a message. A link that is closing drops it: whoever reads will see LinkClosed."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def send(self, message: Message) -> None:
        """Queue a message and wait while the other side is behind. Raises LinkClosed."""
        self.post(message)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise LinkClosed("the other process closed the link") from error

    async def close(self) -> None:
        """What is queued still goes out, unless the other side does not read it."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except ConnectionError:
            # Already gone: that is what closing is for.
            return
        except TimeoutError:
            self._writer.transport.abort()
