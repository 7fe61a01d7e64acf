"""One long-lived connection to one relayer, dialled by the agent: nothing here listens.

The relayer is trusted for nothing but liveness. It hands over sealed requests and asks for claims and releases; the
agent's desk checks all of it again. A lost connection ends its streams, never a request: receipts and ciphertext stay,
and the client that posts again is answered from them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from protocol import link
from protocol.link import BadMessage, Kind, LinkCode, Reason
from protocol.link_messages import Challenge, Hello, OfferAnswer, OutgoingClaim, ReceiptFrame
from worker.agent import questions
from worker.agent.paced_stream import PacedStream
from worker.agent.release_keys import Signer
from worker.agent.rounds import tell
from worker.agent.streams import Answering, Sink

log = logging.getLogger(__name__)

SOFTWARE = "cocoon-agent 0.1.0"
MAX_QUEUED_BYTES = 64 << 20
"""Above the largest stored answer, which is queued at once when its reader leaves."""
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.2, 30.0


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    network: bytes
    node: bytes
    max_in_flight: int


class Agent(questions.Answerer, Protocol):
    """What a link needs of the agent behind it."""

    def offer(self) -> dict[str, Any] | None:
        """The NodeOffer as JSON, None while there is nothing to offer."""

    async def answer(self, sealed: bytes, sink: Sink) -> Answering | None:
        """Begin to answer a sealed request into `sink`; None when the sink was already told all there is."""

    async def newest_receipts(self) -> Sequence[ReceiptFrame]:
        """The newest receipt of every account that is owed something."""


class _Closed(Exception):
    """The connection ended; `code` is the relayer's close code or None."""

    def __init__(self, code: int | None, cause: str) -> None:
        super().__init__(cause)
        self.code = code


class RelayerLink:
    """Keeps the link up until cancelled: dials, proves who it is, serves, redials."""

    def __init__(self, url: str, identity: NodeIdentity, signer: Signer, agent: Agent) -> None:
        self.origin = link.origin_of(url)
        self.connected = False
        self.problem: Reason | None = None
        """Why the relayer does not list this node, in its own words; None while it does."""
        self._identity = identity
        self._signer = signer
        self._agent = agent
        self._url = url.rstrip("/") + link.PATH
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queued_bytes = 0
        self._streams: dict[int, PacedStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ws: aiohttp.ClientWebSocketResponse | None = None

    # ---- called by the agent

    def offer_changed(self) -> None:
        """Tell the relayer what is offered now."""
        if self.connected:
            offer = self._agent.offer()
            self.post(bytes((Kind.WITHDRAW,)) if offer is None else link.json_message(Kind.OFFER, offer))

    def push_claim(self, claim: OutgoingClaim) -> None:
        """Hand over a claim that nobody asked for, so that the relayer also brings it to the chain."""
        if self.connected:
            self.post(questions.pushed_claim(claim))

    def post(self, message: bytes) -> None:
        """Queue a message. A relayer that does not read is dropped: its clients repeat, answers are stored."""
        self._queued_bytes += len(message)
        if self._queued_bytes > MAX_QUEUED_BYTES:
            if self._ws is not None and not self._ws.closed:
                log.warning("relayer %s reads too slowly; dropping the link", self.origin)
                self._spawn(self._ws.close())
            return
        self._queue.put_nowait(message)

    def serves(self, number: int, stream: PacedStream) -> bool:
        return self._streams.get(number) is stream

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
            except Exception as error:
                tell(f"the link to relayer {self.origin} broke", error, ())
            if code in link.PATIENT_CLOSES:
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
                protocols=(link.SUBPROTOCOL,),
                heartbeat=link.HEARTBEAT_SECONDS,
                compress=0,
                max_msg_size=link.MAX_MESSAGE_BYTES + 1,  # aiohttp refuses from this size on
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
                for message in questions.pushed_receipts(await self._agent.newest_receipts()):
                    self.post(message)
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
        async with asyncio.timeout(link.HANDSHAKE_SECONDS):
            kind, message = await self._receive(ws)
            if kind is not Kind.CHALLENGE:
                raise BadMessage(f"{kind.name} came before the challenge")
            challenge = Challenge.from_json(link.json_body(message))
            me = self._identity
            if challenge.network != me.network:
                cause = f"node {me.node.hex()} belongs to another network than this relayer"
                reason = Reason(LinkCode.WRONG_NETWORK, cause, "correct the relayer's URL or the network profile")
                await ws.send_bytes(link.json_message(Kind.GOODBYE, reason.to_json()))
                raise _Closed(link.Close.NODE_REFUSED, f"{reason.cause}; {reason.cure}")
            hello = Hello(
                me.node,
                self._signer.sign(challenge.signed_bytes(me.node, self.origin)),
                me.max_in_flight,
                SOFTWARE,
                self._agent.offer(),
                link.MAX_MESSAGE_BYTES,
            )
            await ws.send_bytes(link.json_message(Kind.HELLO, hello.to_json()))
            kind, _ = await self._receive(ws)
            if kind is not Kind.WELCOME:
                raise BadMessage(f"{kind.name} came instead of a welcome")

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> tuple[Kind, bytes]:
        """The next message, whole, and its kind."""
        received = await ws.receive()
        if received.type is not aiohttp.WSMsgType.BINARY:
            raise _Closed(ws.close_code, f"closed with code {ws.close_code}")
        message: bytes = received.data
        kind = link.kind_of(message)
        if kind is Kind.GOODBYE:
            reason = Reason.from_json(link.json_body(message))
            await ws.receive()  # the close frame, which carries the code
            raise _Closed(ws.close_code, "goodbye" if reason is None else f"{reason.cause}; {reason.cure}")
        return kind, message

    async def _sender(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            while True:
                message = await self._queue.get()
                self._queued_bytes -= len(message)
                await ws.send_bytes(message)
        except Exception as error:
            if not isinstance(error, ConnectionError | aiohttp.ClientError):
                tell(f"writing to relayer {self.origin} failed", error, ())
            # The receiving side sees the same end and reports it; closing makes sure that it does.
            await ws.close()

    # ---- what the relayer says

    def _dispatch(self, kind: Kind, message: bytes) -> None:
        if kind is Kind.OPEN:
            number = link.stream_of(message)
            if number in self._streams:
                raise BadMessage(f"stream {number} is opened twice")
            stream = self._streams[number] = PacedStream(self, number)
            self._spawn(self._open(stream, message[link.STREAM_HEADER_BYTES :]))
        elif kind is Kind.CANCEL:
            self._cancel(link.stream_of(message))
        elif kind is Kind.OFFER_ANSWER:
            self._offer_answer(OfferAnswer.from_json(link.json_body(message)))
        elif kind in questions.ANSWERS:
            self._spawn(self._ask(kind, link.json_body(message)))
        else:
            raise BadMessage(f"{kind.name} is not for agents, or not now")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work for relayer %s failed", self.origin, exc_info=error)

    async def _open(self, stream: PacedStream, sealed: bytes) -> None:
        stream.answering = await self._agent.answer(sealed, stream)
        if stream.cancelled and stream.answering is not None:
            stream.answering.cancel(stream)

    def _cancel(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.cancelled:
            return  # it crossed the last frame
        stream.cancelled = True
        stream.flush()
        if stream.answering is not None:
            stream.answering.cancel(stream)

    def _offer_answer(self, answer: OfferAnswer) -> None:
        self.problem = answer.error
        if answer.error is None:
            log.info("relayer %s lists this node", self.origin)
        else:
            log.info("relayer %s does not list this node: %s", self.origin, answer.error.cause)

    async def _ask(self, kind: Kind, body: dict[str, Any]) -> None:
        self.post(await questions.answer(self._agent, kind, body))
