"""ADNL over TCP, the server's side: handshake, encrypted frames, ping, and one answer to each query.

Protocol: https://docs.ton.org (ADNL TCP, liteserver); frames are `length | nonce(32) | payload | sha256`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import sha256
from typing import Any

from nacl.signing import VerifyKey
from pytoniq_core.crypto.ciphers import Client, create_aes_ctr_cipher, get_shared_key
from pytoniq_core.tl.generator import TlGenerator

log = logging.getLogger(__name__)

_PUBLIC_KEY_TAG = b"\xc6\xb4\x13\x48"
_HANDSHAKE_BYTES = 256
_MAX_FRAME_BYTES = 1 << 22

AnswerQuery = Callable[[bytes], Awaitable[bytes | None]]
"""Bytes of an `adnl.message.query` to bytes of its answer; None hangs up."""


class ProtocolError(Exception):
    """The peer does not speak ADNL, or not to this key."""


@cache
def schemas() -> Any:
    """The TL schemas of pytoniq-core, with byte fields left as bytes."""
    found = TlGenerator.with_default_schemas().generate()
    found._auto_deserialize = False
    return found


def tl_bytes(data: bytes) -> bytes:
    head = bytes([len(data)]) if len(data) < 254 else b"\xfe" + len(data).to_bytes(3, "little")
    return head + data + bytes(-(len(head) + len(data)) % 4)


def read_tl_bytes(data: bytes, offset: int) -> bytes:
    if data[offset] == 254:
        length, offset = int.from_bytes(data[offset + 1 : offset + 4], "little"), offset + 4
    else:
        length, offset = data[offset], offset + 1
    if offset + length > len(data):
        raise ProtocolError("a TL byte string is longer than its frame")
    return data[offset : offset + length]


def tag(name: str) -> bytes:
    found: bytes = schemas().get_by_name(name).little_id()
    return found


class AdnlServer:
    """`seed`: 32 bytes of the server's Ed25519 key."""

    def __init__(self, seed: bytes, answer: AnswerQuery) -> None:
        self._key = Client(seed)
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def public_key(self) -> bytes:
        found: bytes = self._key.ed25519_public.encode()
        return found

    async def start(self, host: str, port: int) -> int:
        """The port, chosen by the system for 0."""
        self._server = await asyncio.start_server(self._serve, host, port)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            channel = _Channel(self._key, await reader.readexactly(_HANDSHAKE_BYTES), writer)
            channel.send(b"")
            while True:
                self._handle(channel, channel.open(await channel.read(reader)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the peer left
        except ProtocolError as error:
            log.warning("liteserver connection refused: %s", error)
        finally:
            self._connections.discard(writer)
            writer.close()

    def _handle(self, channel: _Channel, payload: bytes) -> None:
        if payload[:4] == tag("tcp.ping"):
            channel.send(tag("tcp.pong") + payload[4:12])
        elif payload[:4] == tag("adnl.message.query"):
            task = asyncio.create_task(self._reply(channel, payload[4:36], read_tl_bytes(payload, 36)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, channel: _Channel, query_id: bytes, query: bytes) -> None:
        answer = await self._answer(query)
        if answer is None:
            channel.writer.transport.abort()
        else:
            channel.send(tag("adnl.message.answer") + query_id + tl_bytes(answer))


class _Channel:
    """One connection after its handshake."""

    def __init__(self, key: Client, handshake: bytes, writer: asyncio.StreamWriter) -> None:
        key_id, peer, digest, sealed = handshake[:32], handshake[32:64], handshake[64:96], handshake[96:]
        if key_id != sha256(_PUBLIC_KEY_TAG + key.ed25519_public.encode()).digest():
            raise ProtocolError("the peer wants another liteserver key; use the one in the global config")
        shared = get_shared_key(key.x25519_private.encode(), VerifyKey(peer).to_curve25519_public_key().encode())
        cipher = create_aes_ctr_cipher(shared[0:16] + digest[16:32], digest[0:4] + shared[20:32])
        secret = cipher.decrypt(sealed)
        if sha256(secret).digest() != digest:
            raise ProtocolError("the handshake does not decrypt")
        self.writer = writer
        self._out = create_aes_ctr_cipher(secret[0:32], secret[64:80])
        self._in = create_aes_ctr_cipher(secret[32:64], secret[80:96])

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        length = int.from_bytes(self._in.decrypt(await reader.readexactly(4)), "little")
        if not 64 <= length <= _MAX_FRAME_BYTES:
            raise ProtocolError(f"a frame of {length} bytes")
        return await reader.readexactly(length)

    def open(self, frame: bytes) -> bytes:
        plain: bytes = self._in.decrypt(frame)
        if sha256(plain[:-32]).digest() != plain[-32:]:
            raise ProtocolError("a frame with a wrong checksum")
        return plain[32:-32]

    def send(self, payload: bytes) -> None:
        if self.writer.is_closing():
            return
        body = os.urandom(32) + payload
        frame = (len(body) + 32).to_bytes(4, "little") + body + sha256(body).digest()
        self.writer.write(self._out.encrypt(frame))
