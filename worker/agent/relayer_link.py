"""One long-lived connection to one relayer, dialled by the agent: nothing here listens.

The relayer is trusted for nothing but liveness. It hands over sealed requests and asks for claims and releases; the
agent's desk checks all of it again. A lost connection ends its streams, never a request: receipts and ciphertext stay,
and the client that posts again is answered from them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.agent.relayer_wire import (
    MAX_MESSAGE_BYTES,
    MAX_RECEIPTS,
    SUBPROTOCOL,
    VERSION,
    BadMessage,
    Kind,
    OutgoingClaim,
    ReceiptFrame,
    ReleaseAsk,
    WireError,
    hex_field,
    int_field,
    origin_of,
    pack,
    parse,
    sign_challenge,
    stream_of,
)
from worker.agent.streams import Answering, Sink

log = logging.getLogger(__name__)

SOFTWARE = "cocoon-agent 0.1.0"
HEARTBEAT_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
ANSWER_SECONDS = 25.0
MAX_QUEUED_BYTES = 16 << 20
# Reasons that no redial cures: something must change first.
PATIENT_CLOSE_CODES = frozenset({4401, 4403, 4409})
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.2, 30.0


class Refusal(Exception):
    """The agent declines what the relayer asked for."""

    def __init__(self, code: str, cause: str, cure: str) -> None:
        super().__init__(f"{cause}. {cure}")
        self.error = WireError(code, cause, cure)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    network: bytes
    node: bytes
    max_in_flight: int


class Agent(Protocol):
    """What a link needs of the agent behind it."""

    def offer(self) -> dict[str, Any] | None:
        """The NodeOffer as JSON, None while there is nothing to offer."""

    async def answer(self, sealed: bytes, sink: Sink) -> Answering | None:
        """Begin to answer a sealed request into `sink`; None when the sink was already told all there is."""

    async def claim(self) -> OutgoingClaim:
        """A batch claim over everything that is owed. Raises Refusal."""

    async def release(self, ask: ReleaseAsk) -> tuple[int, bytes]:
        """(allotted_nano, signature). Raises Refusal."""

    async def receipts(self, allotment: bytes, key: bytes, after_seq: int, limit: int) -> Sequence[ReceiptFrame]: ...

    async def newest_receipts(self) -> Sequence[ReceiptFrame]:
        """The newest receipt of every account that is owed something."""


class _Closed(Exception):
    """The connection ended; `code` is the relayer's close code or None."""

    def __init__(self, code: int | None, cause: str) -> None:
        super().__init__(cause)
        self.code = code


class _Stream(Sink):
    """One answer on its way to the relayer."""

    def __init__(self, link: RelayerLink, number: int) -> None:
        self._link = link
        self._number = number
        self.answering: Answering | None = None
        self.cancelled = False

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        if not self._link.knows(self._number):
            return
        if self.cancelled and not receipt:
            if ends:
                self.end()
            return
        self._link.post(bytes([Kind.FRAMES]) + self._number.to_bytes(4, "big") + frames)
        if ends and not self.cancelled:
            self._link.forget(self._number)
        elif self.cancelled:
            self.end()

    def end(self) -> None:
        if self._link.forget(self._number):
            self._link.post(bytes([Kind.END]) + self._number.to_bytes(4, "big"))


class RelayerLink:
    """Keeps the link up until cancelled: dials, proves who it is, serves, redials."""

    def __init__(self, url: str, identity: NodeIdentity, release_key: Ed25519PrivateKey, agent: Agent) -> None:
        self.origin = origin_of(url)
        self.connected = False
        self.problem: WireError | None = None
        """Why the relayer does not list this node, in its own words; None while it does."""
        self._identity = identity
        self._release_key = release_key
        self._agent = agent
        self._url = url.rstrip("/") + "/v1/link"
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queued_bytes = 0
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ws: aiohttp.ClientWebSocketResponse | None = None

    # ---- called by the agent

    def offer_changed(self) -> None:
        """Tell the relayer what is offered now."""
        if self.connected:
            offer = self._agent.offer()
            self.post(bytes([Kind.WITHDRAW]) if offer is None else pack(Kind.OFFER, offer))

    def push_claim(self, claim: OutgoingClaim) -> None:
        """Hand over a claim that nobody asked for, so that the relayer also brings it to the chain."""
        if self.connected:
            self.post(pack(Kind.CLAIM, {"ask": None, **claim.to_dict()}))

    def post(self, message: bytes) -> None:
        """Queue a message. A relayer that does not read is dropped: its clients repeat, answers are stored."""
        self._queued_bytes += len(message)
        if self._queued_bytes > MAX_QUEUED_BYTES:
            if self._ws is not None and not self._ws.closed:
                log.warning("relayer %s reads too slowly; dropping the link", self.origin)
                self._spawn(self._ws.close())
            return
        self._queue.put_nowait(message)

    def knows(self, number: int) -> bool:
        return number in self._streams

    def forget(self, number: int) -> bool:
        return self._streams.pop(number, None) is not None

    async def run(self) -> None:
        """Serve until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            code = None
            try:
                await self._connection()
            except _Closed as closed:
                code = closed.code
                log.warning("link to relayer %s ended: %s", self.origin, closed)
            except BadMessage as error:
                log.warning("relayer %s broke the protocol: %s", self.origin, error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("relayer %s cannot be reached: %s", self.origin, error or type(error).__name__)
            if code in PATIENT_CLOSE_CODES:
                backoff = LAST_BACKOFF_SECONDS
            elif asyncio.get_running_loop().time() - started > LAST_BACKOFF_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            await asyncio.sleep(backoff * random.uniform(0.7, 1.3))
            backoff = min(LAST_BACKOFF_SECONDS, backoff * 2)

    # ---- one connection

    async def _connection(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                self._url,
                protocols=(SUBPROTOCOL,),
                heartbeat=HEARTBEAT_SECONDS,
                compress=0,
                max_msg_size=MAX_MESSAGE_BYTES,
            ) as ws,
        ):
            self._ws = ws
            self._queue = asyncio.Queue()
            self._queued_bytes = 0
            await self._handshake(ws)
            self.connected = True
            log.info("relayer %s accepted the link", self.origin)
            sender = asyncio.create_task(self._sender(ws))
            try:
                await self._push_newest()
                while True:
                    self._dispatch(*await self._receive(ws))
            finally:
                self.connected = False
                self._ws = None
                await self._drop(sender)

    async def _drop(self, sender: asyncio.Task[None]) -> None:
        for stream in self._streams.values():
            if stream.answering is not None:
                stream.answering.leave(stream)
        self._streams.clear()
        for task in (sender, *self._tasks):
            task.cancel()
        await asyncio.gather(sender, *self._tasks, return_exceptions=True)

    async def _handshake(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            kind, body = await self._receive(ws)
            if kind is not Kind.CHALLENGE:
                raise BadMessage(f"{kind.name} before the challenge")
            challenge = parse(body)
            me = self._identity
            if hex_field(challenge, "network_id") != me.network:
                cause = "this node belongs to another network"
                await ws.send_bytes(pack(Kind.GOODBYE, WireError("wrong_network", cause, "").to_dict()))
                raise _Closed(4403, f"{cause} than the relayer. Correct the relayer's URL or the network profile")
            nonce, issued_at = hex_field(challenge, "nonce"), int_field(challenge, "issued_at")
            signature = sign_challenge(self._release_key, me.network, me.node, nonce, issued_at, self.origin)
            hello = {
                "version": VERSION,
                "node": me.node.hex(),
                "signature": signature.hex(),
                "max_in_flight": me.max_in_flight,
                "software": SOFTWARE,
                "offer": self._agent.offer(),
            }
            await ws.send_bytes(pack(Kind.HELLO, hello))
            kind, _ = await self._receive(ws)
            if kind is not Kind.WELCOME:
                raise BadMessage(f"{kind.name} instead of a welcome")

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> tuple[Kind, bytes]:
        message = await ws.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise _Closed(ws.close_code, f"closed with code {ws.close_code}")
        try:
            kind = Kind(message.data[0])
        except (ValueError, IndexError) as error:
            raise BadMessage("a message of unknown kind") from error
        if kind is Kind.GOODBYE:
            error_body = parse(message.data[1:])
            await ws.receive()  # the close frame, which carries the code
            raise _Closed(ws.close_code, f"{error_body.get('cause')}. {error_body.get('cure')}")
        return kind, message.data[1:]

    async def _sender(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            while True:
                message = await self._queue.get()
                self._queued_bytes -= len(message)
                await ws.send_bytes(message)
        except (ConnectionError, aiohttp.ClientError):
            # The receiving side sees the same end and reports it; closing makes sure that it does.
            await ws.close()

    # ---- what the relayer says

    def _dispatch(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.OPEN:
            number, sealed = stream_of(body)
            if number in self._streams:
                raise BadMessage(f"stream {number} is opened twice")
            stream = self._streams[number] = _Stream(self, number)
            self._spawn(self._open(stream, sealed))
        elif kind is Kind.CANCEL:
            self._cancel(stream_of(body)[0])
        elif kind is Kind.OFFER_ANSWER:
            self._offer_answer(parse(body))
        elif kind is Kind.ASK_CLAIM:
            self._spawn(self._ask(Kind.CLAIM, parse(body), self._claim))
        elif kind is Kind.ASK_RELEASE:
            self._spawn(self._ask(Kind.RELEASE, parse(body), self._release))
        elif kind is Kind.ASK_RECEIPTS:
            self._spawn(self._ask(Kind.RECEIPTS, parse(body), self._receipts))
        else:
            raise BadMessage(f"{kind.name} is not for agents, or not now")

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work for relayer %s failed", self.origin, exc_info=error)

    async def _open(self, stream: _Stream, sealed: bytes) -> None:
        stream.answering = await self._agent.answer(sealed, stream)
        if stream.cancelled and stream.answering is not None:
            stream.answering.cancel(stream)

    def _cancel(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.cancelled:
            return  # it crossed the last frame
        stream.cancelled = True
        if stream.answering is not None:
            stream.answering.cancel(stream)

    def _offer_answer(self, body: dict[str, Any]) -> None:
        error = body.get("error")
        if body.get("accepted") is True:
            self.problem = None
            log.info("relayer %s lists this node", self.origin)
        elif isinstance(error, dict):
            self.problem = WireError(*(str(error.get(name, ""))[:400] for name in ("code", "cause", "cure")))
            log.info("relayer %s does not list this node: %s", self.origin, self.problem.cause)

    async def _ask(self, kind: Kind, body: dict[str, Any], answer: Callable[[dict[str, Any]], Any]) -> None:
        ask = int_field(body, "ask")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self.post(pack(kind, {"ask": ask, **await answer(body)}))
        except Refusal as refusal:
            self.post(pack(kind, {"ask": ask, "error": refusal.error.to_dict()}))
        except BadMessage as error:
            self.post(pack(kind, {"ask": ask, "error": WireError("bad_request", str(error), "Correct it").to_dict()}))
        except TimeoutError:
            late = WireError("too_late", "the agent could not answer in time", "Ask again")
            self.post(pack(kind, {"ask": ask, "error": late.to_dict()}))

    async def _claim(self, body: dict[str, Any]) -> dict[str, Any]:
        return (await self._agent.claim()).to_dict()

    async def _release(self, body: dict[str, Any]) -> dict[str, Any]:
        ask = ReleaseAsk.parse(body.get("release_request"))
        allotted, signature = await self._agent.release(ask)
        return {
            "allotment": ask.allotment.hex(),
            "row_seqno": ask.row_seqno,
            "allotted_nano": allotted,
            "signature": signature.hex(),
        }

    async def _receipts(self, body: dict[str, Any]) -> dict[str, Any]:
        allotment, key = hex_field(body, "allotment"), hex_field(body, "key")
        after, limit = int_field(body, "after_seq"), int_field(body, "limit")
        rows = await self._agent.receipts(allotment, key, after, min(limit, MAX_RECEIPTS))
        return {"receipts": [row.to_dict() for row in rows], "error": None}

    async def _push_newest(self) -> None:
        rows = await self._agent.newest_receipts()
        for start in range(0, len(rows), MAX_RECEIPTS):
            part = [row.to_dict() for row in rows[start : start + MAX_RECEIPTS]]
            self.post(pack(Kind.RECEIPTS, {"ask": None, "receipts": part, "error": None}))
