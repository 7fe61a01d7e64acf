"""The agent's link against relayers that misbehave: it redials, says why, and keeps what it was given."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.frames import Frame, FrameType
from protocol.link import MAX_MESSAGE_BYTES, Kind, LinkCode, frames_messages, json_message, stream_message
from protocol.link_messages import OutgoingClaim, ReceiptFrame
from protocol.sealing import MAX_SEALED_BYTES
from worker.agent import paced_stream, relayer_link
from worker.agent.questions import Refusal
from worker.agent.relayer_link import NodeIdentity, RelayerLink
from worker.agent.streams import Sink

NETWORK, NODE = b"N" * 32, b"n" * 32
CHALLENGE = {"version": 1, "nonce": "33" * 32, "issued_at": 1, "network_id": NETWORK.hex(), "relayer": "test"}


class Desk:
    """The agent behind the link."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[tuple[bytes, Sink]] = asyncio.Queue()
        self.cancelled: list[Sink] = []
        self.left: list[Sink] = []

    def offer(self) -> dict[str, Any] | None:
        return {"an": "offer"}

    async def answer(self, sealed: bytes, sink: Sink) -> Desk:
        await self.opened.put((sealed, sink))
        return self

    def cancel(self, sink: Sink) -> None:
        self.cancelled.append(sink)

    def leave(self, sink: Sink) -> None:
        self.left.append(sink)

    async def claim(self) -> OutgoingClaim:
        return OutgoingClaim(b"boc", 7, 99, ((b"e" * 32, 5, 1),))

    async def release(self, ask: Any) -> tuple[int, bytes]:
        raise Refusal(LinkCode.UNCLAIMED, "owed", "wait")

    async def receipts(self, allotment: bytes, key: bytes, after_seq: int, limit: int) -> list[ReceiptFrame]:
        return [ReceiptFrame(b"e" * 32, 3, key, b"payload")] * min(limit, 2)

    async def newest_receipts(self) -> list[ReceiptFrame]:
        return [ReceiptFrame(b"e" * 32, 3, b"k" * 32, b"newest")]


Script = Callable[[web.WebSocketResponse], Awaitable[None]]


@pytest.fixture(autouse=True)
def fast_redial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayer_link, "FIRST_BACKOFF_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def linked(*scripts: Script) -> AsyncIterator[tuple[RelayerLink, Desk]]:
    """A link whose n-th connection is answered by the n-th script."""
    waiting = list(scripts)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("cocoon.link.v1",))
        await ws.prepare(request)
        if waiting:
            await waiting.pop(0)(ws)
        return ws

    application = web.Application()
    application.router.add_get("/v1/link", serve)
    async with TestServer(application) as server:
        desk = Desk()
        url = f"ws://127.0.0.1:{server.port}"
        link = RelayerLink(url, NodeIdentity(NETWORK, NODE, 4), Ed25519PrivateKey.generate(), desk)
        running = asyncio.create_task(link.run())
        try:
            yield link, desk
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def welcome(ws: web.WebSocketResponse) -> dict[str, Any]:
    await ws.send_bytes(json_message(Kind.CHALLENGE, CHALLENGE))
    hello = await ws.receive_bytes()
    await ws.send_bytes(json_message(Kind.WELCOME, {}))
    newest = await ws.receive_bytes()
    assert newest[0] == Kind.RECEIPTS and json.loads(newest[1:])["ask"] is None
    return dict(json.loads(hello[1:]))


async def finish(done: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await done.wait()


async def test_g18_junk_ends_the_connection_and_the_agent_dials_again() -> None:
    done = asyncio.Event()
    junk: list[bytes] = [b"", b"\x7f", bytes([Kind.OPEN]), json_message(Kind.HELLO, {}), bytes([Kind.ASK_CLAIM]) + b"{"]

    def broken(message: bytes) -> Script:
        async def script(ws: web.WebSocketResponse) -> None:
            await welcome(ws)
            await ws.send_bytes(message)
            received = await ws.receive()
            while received.type is WSMsgType.BINARY:
                received = await ws.receive()

        return script

    async def last(ws: web.WebSocketResponse) -> None:
        assert (await welcome(ws))["node"] == NODE.hex()
        done.set()
        await ws.receive()

    async with linked(*[broken(message) for message in junk], last):
        await finish(done)


async def test_another_network_is_refused_before_anything_is_signed() -> None:
    done = asyncio.Event()

    async def script(ws: web.WebSocketResponse) -> None:
        await ws.send_bytes(json_message(Kind.CHALLENGE, {**CHALLENGE, "network_id": "ff" * 32}))
        answer = await ws.receive_bytes()
        assert answer[0] == Kind.GOODBYE and json.loads(answer[1:])["code"] == "wrong-network"
        done.set()
        await ws.receive()

    async with linked(script):
        await finish(done)


async def test_streams_questions_and_cancellation() -> None:
    done = asyncio.Event()
    stream, other = (5).to_bytes(4, "big"), (6).to_bytes(4, "big")

    async def script(ws: web.WebSocketResponse) -> None:
        assert (await welcome(ws))["offer"] == {"an": "offer"}
        await ws.send_bytes(bytes([Kind.OPEN]) + stream + b"sealed")
        assert await ws.receive_bytes() == bytes([Kind.FRAMES]) + stream + b"head"
        assert await ws.receive_bytes() == bytes([Kind.FRAMES]) + stream + b"last"
        await ws.send_bytes(bytes([Kind.OPEN]) + other + b"sealed")
        await ws.send_bytes(bytes([Kind.CANCEL]) + other)
        assert await ws.receive_bytes() == bytes([Kind.FRAMES]) + other + b"receipt"
        assert await ws.receive_bytes() == bytes([Kind.END]) + other
        await ws.send_bytes(bytes([Kind.CANCEL]) + stream)  # over already: ignored
        await ws.send_bytes(json_message(Kind.ASK_CLAIM, {"ask": 1}))
        claim = await ws.receive_bytes()
        assert claim[0] == Kind.CLAIM and json.loads(claim[1:])["entries"][0]["cumulative_nano"] == 5
        asked = {"escrow": "aa" * 32, "node": "bb" * 32, "allotment": "cc" * 32, "row_seqno": 1, "allotted_nano": 2}
        asked |= {"expires_at": 3, "signature": "dd" * 64}
        await ws.send_bytes(json_message(Kind.ASK_RELEASE, {"ask": 2, "release_request": asked}))
        assert json.loads((await ws.receive_bytes())[1:]) == {
            "ask": 2,
            "error": {"code": "unclaimed", "cause": "owed", "cure": "wait"},
        }
        await ws.send_bytes(json_message(Kind.ASK_RELEASE, {"ask": 3, "release_request": {**asked, "node": "x"}}))
        assert json.loads((await ws.receive_bytes())[1:])["error"]["code"] == "bad-request"
        question = {"ask": 4, "allotment": "aa" * 32, "key": "bb" * 32, "after_seq": 0, "limit": 9}
        await ws.send_bytes(json_message(Kind.ASK_RECEIPTS, question))
        assert len(json.loads((await ws.receive_bytes())[1:])["receipts"]) == 2
        done.set()
        await ws.receive()

    async with linked(script) as (_, desk):
        _, sink = await desk.opened.get()
        sink.send(b"head", ends=False, receipt=False)
        sink.send(b"last", ends=True, receipt=False)
        sink.send(b"late", ends=False, receipt=True)  # nobody hears what comes after the end
        _, sink = await desk.opened.get()
        async with asyncio.timeout(5):
            while not desk.cancelled:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        sink.send(b"data", ends=False, receipt=False)  # not wanted any more
        sink.send(b"receipt", ends=False, receipt=True)
        sink.send(b"last", ends=True, receipt=False)
        await finish(done)


async def test_the_largest_sealed_request_and_long_stored_answers_cross_the_link() -> None:
    done = asyncio.Event()
    sealed = bytes(MAX_SEALED_BYTES)
    frames = Frame(FrameType.DATA, bytes(50_000)).to_bytes() * 20

    async def script(ws: web.WebSocketResponse) -> None:
        assert (await welcome(ws))["max_message_bytes"] == MAX_MESSAGE_BYTES
        await ws.send_bytes(stream_message(Kind.OPEN, 5, sealed))
        received = b""
        while len(received) < len(frames):
            message = await ws.receive_bytes()
            assert message.startswith(stream_message(Kind.FRAMES, 5)) and len(message) <= 1 << 20
            received += message[5:]
        assert received == frames
        done.set()
        await ws.receive()

    async with linked(script) as (_, desk):
        async with asyncio.timeout(10):
            opened, sink = await desk.opened.get()
        assert opened == sealed
        sink.send(frames, ends=True, receipt=False)
        await finish(done)


async def test_a_stored_answer_goes_at_a_pace_until_its_reader_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_stream, "PACED_BYTES_PER_SECOND", 1000)
    done = asyncio.Event()
    frames = Frame(FrameType.DATA, bytes(50_000)).to_bytes() * 10
    parts = list(frames_messages(5, frames))

    async def script(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        await ws.send_bytes(stream_message(Kind.OPEN, 5, b"sealed"))
        assert await ws.receive_bytes() == parts[0]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ws.receive_bytes()
        await ws.send_bytes(stream_message(Kind.CANCEL, 5))
        async with asyncio.timeout(5):
            for part in parts[1:]:
                assert await ws.receive_bytes() == part
        # The answer had its end: the number is free, and no END follows.
        await ws.send_bytes(json_message(Kind.ASK_CLAIM, {"ask": 1}))
        assert (await ws.receive_bytes())[0] == Kind.CLAIM
        done.set()
        await ws.receive()

    async with linked(script) as (_, desk):
        _, sink = await desk.opened.get()
        sink.send(frames, ends=True, receipt=False)
        await finish(done)


async def test_a_number_given_away_anew_hears_nothing_of_the_stream_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_stream, "PACED_BYTES_PER_SECOND", 400_000)
    done = asyncio.Event()
    frames = Frame(FrameType.DATA, bytes(50_000)).to_bytes() * 10

    async def script(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        await ws.send_bytes(stream_message(Kind.OPEN, 1, b"first"))
        await ws.receive_bytes()
        await ws.close(code=4503)

    async def last(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        await ws.send_bytes(stream_message(Kind.OPEN, 1, b"second"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await ws.receive_bytes()
        done.set()
        await ws.receive()

    async with linked(script, last) as (_, desk):
        _, sink = await desk.opened.get()
        sink.send(frames, ends=True, receipt=False)
        await finish(done)


async def test_a_lost_link_leaves_its_answers_running() -> None:
    done = asyncio.Event()

    async def script(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        await ws.send_bytes(bytes([Kind.OPEN]) + bytes(4) + b"sealed")
        await asyncio.sleep(0.05)
        await ws.close(code=4503)

    async def last(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        done.set()
        await ws.receive()

    async with linked(script, last) as (_, desk):
        _, sink = await desk.opened.get()
        await finish(done)
        assert desk.left == [sink] and not desk.cancelled
        sink.send(b"frames", ends=True, receipt=False)


async def test_a_relayer_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayer_link, "MAX_QUEUED_BYTES", 1 << 20)
    done = asyncio.Event()

    async def deaf(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        await ws.send_bytes(bytes([Kind.OPEN]) + bytes(4) + b"sealed")
        await asyncio.sleep(1)

    async def last(ws: web.WebSocketResponse) -> None:
        await welcome(ws)
        done.set()
        await ws.receive()

    async with linked(deaf, last) as (_, desk):
        _, sink = await desk.opened.get()
        for _ in range(100):
            sink.send(Frame(FrameType.DATA, bytes(60_000)).to_bytes() * 15, ends=False, receipt=False)
        await finish(done)
