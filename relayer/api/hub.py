"""All worker links: the handshake, the offers, and where a node's agent is to be found."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import WSMsgType, web

from protocol import link
from protocol.errors import Code, ProtocolError
from protocol.link import BadMessage, Close, Kind, LinkCode, Reason
from protocol.link_messages import Hello, OfferAnswer
from protocol.offer import NodeOffer
from relayer.api.handshake import new_challenge, read_hello, speaks_for_node
from relayer.api.worker_link import Offered, WorkerLink
from relayer.chain.mirror import Mirror
from relayer.config import Limits
from relayer.core.facts import OfferPublished
from relayer.errors import Refusal
from relayer.log import log
from relayer.store.writer import Writer
from wrappers.node import NodeState

CLOSE_SECONDS = 3.0
_FRAMES = bytes((Kind.FRAMES,))
OnMessage = Callable[[WorkerLink, dict[str, Any]], Awaitable[None]]


class Hub:
    """`on_claim` gets claims that nobody asked for, `on_receipts` receipts that agents push."""

    def __init__(
        self, mirror: Mirror, writer: Writer, limits: Limits, *, name: str, on_claim: OnMessage, on_receipts: OnMessage
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._limits = limits
        self._name = name
        self._on_claim = on_claim
        self._on_receipts = on_receipts
        self._links: dict[bytes, WorkerLink] = {}
        self.origins: Sequence[str] = ()
        """Under which agents may have dialled this relayer."""
        self.closing = False

    def get(self, node: bytes) -> WorkerLink | None:
        return self._links.get(node)

    def links(self) -> tuple[WorkerLink, ...]:
        return tuple(self._links.values())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/link: one agent, from its handshake to its end."""
        socket = web.WebSocketResponse(
            heartbeat=link.HEARTBEAT_SECONDS,
            timeout=CLOSE_SECONDS,
            max_msg_size=link.MAX_MESSAGE_BYTES + 1,  # aiohttp refuses from this size on
            compress=False,
            protocols=(link.SUBPROTOCOL,),
        )
        await socket.prepare(request)
        worker: WorkerLink | None = None
        try:
            worker, hello, state = await self._handshake(socket)
            await self._welcome(worker, state)
            if hello.offer is not None:
                await self._take_offer(worker, json.dumps(hello.offer).encode())
            await self._serve(socket, worker)
        except _TurnedAway as error:
            log("link refused", peer=request.remote, code=error.reason.code, reason=str(error))
            with contextlib.suppress(ConnectionError):  # it may have hung up, and needs no goodbye then
                await socket.send_bytes(link.json_message(Kind.GOODBYE, error.reason.to_json()))
            await socket.close(code=error.close, message=error.reason.code.encode())
        except (BadMessage, Refusal, ConnectionError) as error:
            log("link ended", node=worker.node if worker else None, peer=request.remote, reason=str(error))
        finally:
            if worker is not None:
                self._forget(worker)
        return socket

    async def _handshake(self, socket: web.WebSocketResponse) -> tuple[WorkerLink, Hello, NodeState]:
        """Raises _TurnedAway unless whoever dialled speaks for an open node."""
        challenge = new_challenge(self._mirror.network, self._name, int(time.time()))
        await socket.send_bytes(link.json_message(Kind.CHALLENGE, challenge.to_json()))
        try:
            async with asyncio.timeout(link.HANDSHAKE_SECONDS):
                hello = read_hello(await socket.receive_bytes())
        except TimeoutError as error:
            reason = Reason(LinkCode.TOO_LATE, "no HELLO in time", "answer the challenge at once")
            raise _TurnedAway(Close.TOO_LATE, reason) from error
        except BadMessage as error:
            raise _TurnedAway(Close.BAD_MESSAGE, Reason.of(LinkCode.BAD_MESSAGE, error)) from error
        except TypeError as error:  # aiohttp's word for a message that is not binary
            fault = BadMessage("the first message is not binary")
            raise _TurnedAway(Close.BAD_MESSAGE, Reason.of(LinkCode.BAD_MESSAGE, fault)) from error
        state = await self._read_node(hello.node)
        if not speaks_for_node(hello, challenge, release_key=state.release_key, origins=self.origins):
            reason = Reason(
                LinkCode.NOT_AUTHENTICATED,
                "the challenge is not signed by the node's release key for this relayer's address",
                f"sign with the release key on chain and dial one of {', '.join(self.origins)}",
            )
            raise _TurnedAway(Close.NOT_AUTHENTICATED, reason, hello.node)
        worker = WorkerLink(
            socket,
            node=hello.node,
            max_in_flight=hello.max_in_flight,
            max_message_bytes=hello.max_message_bytes,
            software=hello.software,
            connected_at=int(time.time()),
            stream_buffer_bytes=self._limits.stream_buffer_bytes,
        )
        return worker, hello, state

    async def _read_node(self, node: bytes) -> NodeState:
        try:
            seen = await self._mirror.node(node, max_age_seconds=0)
        except Refusal as error:
            raise _TurnedAway(Close.SHUTTING_DOWN, Reason.of(error.code, error), node) from error
        if seen.state is None:
            reason = Reason(LinkCode.NODE_REFUSED, seen.why_not, "open the node on this network, then dial again")
            raise _TurnedAway(Close.NODE_REFUSED, reason, node)
        return seen.state

    async def _welcome(self, worker: WorkerLink, state: NodeState) -> None:
        body = {
            "version": link.VERSION,
            "heartbeat_seconds": link.HEARTBEAT_SECONDS,
            "first_frame_seconds": self._limits.first_frame_seconds,
            "idle_seconds": self._limits.idle_seconds,
            "max_request_bytes": self._limits.max_request_bytes,
            "release_key": state.release_key.hex(),
        }
        await worker.send(link.json_message(Kind.WELCOME, body))
        # Only now: whoever finds the link may send on it, and WELCOME comes first.
        older = self._links.get(worker.node)
        self._links[worker.node] = worker
        if older is not None:
            older.lost("its agent connected anew")
            reason = Reason(LinkCode.REPLACED, "a newer link of this node took over", "run one agent per node")
            await older.close(Close.REPLACED, reason)
        log("worker connected", node=worker.node, software=worker.software, max_in_flight=worker.max_in_flight)

    async def _serve(self, socket: web.WebSocketResponse, worker: WorkerLink) -> None:
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
            data: bytes = message.data
            try:
                if data[:1] == _FRAMES:  # by far the most frequent
                    worker.frames(data)
                else:
                    await self._control(worker, data)
            except BadMessage as error:
                await worker.close(Close.BAD_MESSAGE, Reason.of(LinkCode.BAD_MESSAGE, error))
                raise

    async def _control(self, worker: WorkerLink, message: bytes) -> None:
        match link.kind_of(message):
            case Kind.END:
                worker.end(message)
            case Kind.OFFER:
                await self._take_offer(worker, message[1:])
            case Kind.WITHDRAW:
                worker.offered = None
                log("offer withdrawn", node=worker.node)
            case Kind.CLAIM:
                body = link.json_body(message)
                if not worker.answer(body) and "message" in body:
                    await self._on_claim(worker, body)
            case Kind.RECEIPTS:
                body = link.json_body(message)
                if not worker.answer(body):
                    await self._on_receipts(worker, body)
            case Kind.RELEASE:
                worker.answer(link.json_body(message))
            case Kind.GOODBYE:
                log("worker says goodbye", node=worker.node, code=str(link.json_body(message).get("code"))[:40])
            case kind:
                raise BadMessage(f"{kind.name} is not for a relayer")

    async def _take_offer(self, worker: WorkerLink, text: bytes) -> None:
        try:
            offer = NodeOffer.from_json(text)
        except ProtocolError as error:
            await _answer_offer(worker, b"", Reason.of(LinkCode.BAD_OFFER, error))
            return
        worker.offered = Offered(offer, json.loads(text), _PENDING)
        await self.check_offer(worker, fresh=True)

    async def check_offer(self, worker: WorkerLink, *, fresh: bool = False) -> None:
        """Compares the link's offer with the chain; tells the agent when the verdict changed."""
        offered = worker.offered
        if offered is None:
            return
        try:
            seen = await self._mirror.node(worker.node, max_age_seconds=0 if fresh else self._limits.mirror_seconds)
            error = judge_offer(offered.offer, worker.node, self._mirror.network, seen.state, int(time.time()))
            if error is None and seen.state is not None:
                error = judge_standing(await self._mirror.standing(worker.node, seen.state))
        except Refusal as refusal:
            if offered.error is not _PENDING:
                return  # an outage is no news about an offer that was judged already
            error = Reason.of(refusal.code, refusal)
        if worker.offered is not offered or error == offered.error:
            return
        worker.offered = Offered(offered.offer, offered.json, error)
        await _answer_offer(worker, offered.offer.signing_key, error)
        log("offer judged", node=worker.node, accepted=error is None, code=error.code if error else None)
        if error is None:
            digest = hashlib.sha256(json.dumps(offered.json, sort_keys=True).encode()).digest()
            self._writer.note(OfferPublished(worker.node, offered.offer.signing_key, digest, int(time.time())))

    def _forget(self, worker: WorkerLink) -> None:
        worker.lost("the connection to its agent broke")
        if self._links.get(worker.node) is worker:
            del self._links[worker.node]
        log("worker disconnected", node=worker.node)

    async def close(self) -> None:
        self.closing = True
        reason = Reason(LinkCode.SHUTTING_DOWN, "the relayer stops", "dial again in a moment")
        await asyncio.gather(*(worker.close(Close.SHUTTING_DOWN, reason) for worker in self.links()))


class _TurnedAway(Exception):
    """Whoever dialled does not get a link; it hears why."""

    def __init__(self, close: Close, reason: Reason, node: bytes | None = None) -> None:
        who = "" if node is None else f"node {node.hex()}: "
        super().__init__(f"{who}{reason.cause}")
        self.close = close
        self.reason = reason


_PENDING = Reason(LinkCode.UNCHECKED, "the offer was not compared with the chain yet", "wait a moment")


def judge_offer(offer: NodeOffer, node: bytes, network: bytes, state: NodeState | None, now: int) -> Reason | None:
    """Why the offer cannot be live, or None. Evidence is the clients' to verify; here only the chain's word counts."""
    if offer.network != network or offer.node != node:
        cause = "the offer is for another node or network"
        return Reason(LinkCode.BAD_OFFER, cause, "publish this node's own offer")
    if state is None:
        return Reason(LinkCode.NODE_REFUSED, "the node is not open on chain", "open the node")
    if (offer.node_epoch, offer.node_id) != (state.epoch, state.node_id):
        cause = f"the node was born at {state.epoch}"
        return Reason(LinkCode.WRONG_EPOCH, cause, "make the offer for the node's present life")
    if state.unbond_at:
        return Reason(LinkCode.NODE_UNBONDING, "the node is unbonding", "open a new node")
    if state.draining:
        return Reason(Code.NODE_DRAINING, "its operator drains it", "`cocoon node drain --off` lets it serve again")
    if state.signing_key != offer.signing_key:
        cause = "the chain shows another enclave key, or none"
        return Reason(LinkCode.KEY_NOT_ON_CHAIN, cause, "have the evidence attested")
    if not state.key_attested(offer.signing_key, now):
        return Reason(LinkCode.ATTESTATION_OVER, f"attested until {state.attested_until}", "attest anew")
    return None


def judge_standing(faults: tuple[str, ...]) -> Reason | None:
    """Obeyed at once, though the node itself may not have been told yet."""
    if not faults:
        return None
    return Reason(LinkCode.NOT_IN_STANDING, "; ".join(faults), "run a released image on a platform in good standing")


async def _answer_offer(worker: WorkerLink, key: bytes, error: Reason | None) -> None:
    await worker.send(link.json_message(Kind.OFFER_ANSWER, OfferAnswer(key, error).to_json()))
