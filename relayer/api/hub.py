"""All worker links: the handshake, the offers, and where a node's agent is to be found."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import WSMsgType, web

from protocol.errors import ProtocolError
from protocol.offer import NodeOffer
from relayer import link
from relayer.api.handshake import Challenge, Hello, read_hello, speaks_for_node
from relayer.api.worker_link import Offered, WorkerLink
from relayer.chain.mirror import Mirror, Seen
from relayer.config import Limits
from relayer.core.facts import OfferPublished
from relayer.errors import Refusal
from relayer.link import Close, Kind, LinkError
from relayer.log import log
from relayer.store.writer import Writer
from wrappers.node import NodeState

CLOSE_SECONDS = 3.0
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
            max_msg_size=link.MAX_MESSAGE_BYTES,
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
        except (LinkError, Refusal, TimeoutError, ConnectionError) as error:
            log("link refused", node=worker.node if worker else None, peer=request.remote, reason=str(error))
        finally:
            if worker is not None:
                self._forget(worker)
        return socket

    async def _handshake(self, socket: web.WebSocketResponse) -> tuple[WorkerLink, Hello, NodeState]:
        challenge = Challenge.new(int(time.time()))
        body = {
            "version": link.VERSION,
            "nonce": challenge.nonce.hex(),
            "issued_at": challenge.issued_at,
            "network_id": self._mirror.network.hex(),
            "relayer": self._name,
        }
        await socket.send_bytes(link.json_message(Kind.CHALLENGE, body))
        try:
            async with asyncio.timeout(link.HANDSHAKE_SECONDS):
                hello = read_hello(await socket.receive_bytes())
        except TimeoutError:
            await _refuse(socket, Close.TOO_LATE, "too-late", "no HELLO in time", "answer the challenge at once")
            raise
        except (LinkError, TypeError) as error:  # TypeError: aiohttp's word for a message that is not binary
            await _refuse(socket, Close.BAD_MESSAGE, "bad-message", str(error), "speak cocoon.link.v1")
            raise LinkError(str(error)) from error
        seen = await self._read_node(socket, hello.node)
        state = seen.state
        if state is None:
            await _refuse(
                socket,
                Close.NODE_REFUSED,
                "node-refused",
                seen.why_not,
                "open the node on this network, then dial again",
            )
            raise LinkError(f"node {hello.node.hex()}: {seen.why_not}")
        if not speaks_for_node(
            hello, challenge, release_key=state.release_key, network=self._mirror.network, origins=self.origins
        ):
            await _refuse(
                socket,
                Close.NOT_AUTHENTICATED,
                "not-authenticated",
                "the challenge is not signed by the node's release key for this relayer's address",
                f"sign with the release key on chain and dial one of {', '.join(self.origins)}",
            )
            raise LinkError(f"node {hello.node.hex()} is not authenticated")
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

    async def _read_node(self, socket: web.WebSocketResponse, node: bytes) -> Seen[NodeState]:
        try:
            return await self._mirror.node(node, max_age_seconds=0)
        except Refusal as error:
            await _refuse(socket, Close.SHUTTING_DOWN, error.code, error.cause, error.cure)
            raise

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
            error = {
                "code": "replaced",
                "cause": "a newer link of this node took over",
                "cure": "run one agent per node",
            }
            await older.close(Close.REPLACED, error)
        log("worker connected", node=worker.node, software=worker.software, max_in_flight=worker.max_in_flight)

    async def _serve(self, socket: web.WebSocketResponse, worker: WorkerLink) -> None:
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
            data: bytes = message.data
            try:
                if data[:1] == b"\x90":  # FRAMES, by far the most frequent
                    worker.frames(data)
                else:
                    await self._control(worker, data)
            except LinkError as error:
                detail = {"code": "bad-message", "cause": str(error), "cure": "speak cocoon.link.v1"}
                await worker.close(Close.BAD_MESSAGE, detail)
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
                raise LinkError(f"{kind.name} is not for a relayer")

    async def _take_offer(self, worker: WorkerLink, text: bytes) -> None:
        try:
            offer = NodeOffer.from_json(text)
        except ProtocolError as error:
            await _answer_offer(worker, b"", {"code": "bad-offer", "cause": error.cause, "cure": error.cure})
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
        except Refusal as refusal:
            if offered.error is not _PENDING:
                return  # an outage is no news about an offer that was judged already
            error = {"code": refusal.code, "cause": refusal.cause, "cure": refusal.cure}
        if worker.offered is not offered or error == offered.error:
            return
        worker.offered = Offered(offered.offer, offered.json, error)
        await _answer_offer(worker, offered.offer.signing_key, error)
        log("offer judged", node=worker.node, accepted=error is None, code=error["code"] if error else None)
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
        error = {"code": "shutting-down", "cause": "the relayer stops", "cure": "dial again in a moment"}
        await asyncio.gather(*(worker.close(Close.SHUTTING_DOWN, error) for worker in self.links()))


_PENDING: Mapping[str, str] = {
    "code": "unchecked",
    "cause": "the offer was not compared with the chain yet",
    "cure": "wait a moment",
}


def judge_offer(
    offer: NodeOffer, node: bytes, network: bytes, state: NodeState | None, now: int
) -> Mapping[str, str] | None:
    """Why the offer cannot be live, or None. Evidence is the clients' to verify; here only the chain's word counts."""

    def no(code: str, cause: str, cure: str) -> Mapping[str, str]:
        return {"code": code, "cause": cause, "cure": cure}

    if offer.network != network or offer.node != node:
        return no("bad-offer", "the offer is for another node or network", "publish this node's own offer")
    if state is None:
        return no("node-refused", "the node is not open on chain", "open the node")
    if (offer.node_epoch, offer.node_id) != (state.epoch, state.node_id):
        return no("wrong-epoch", f"the node was born at {state.epoch}", "make the offer for the node's present life")
    if state.unbond_at:
        return no("node-unbonding", "the node is unbonding", "open a new node")
    if state.signing_key != offer.signing_key:
        return no("key-not-on-chain", "the chain shows another enclave key, or none", "have the evidence admitted")
    if not state.key_attested(offer.signing_key, now):
        return no("attestation-over", f"attested until {state.attested_until}", "attest anew")
    return None


async def _answer_offer(worker: WorkerLink, key: bytes, error: Mapping[str, str] | None) -> None:
    body = {"accepted": error is None, "key": key.hex(), "error": error}
    await worker.send(link.json_message(Kind.OFFER_ANSWER, body))


async def _refuse(socket: web.WebSocketResponse, close: Close, code: str, cause: str, cure: str) -> None:
    await socket.send_bytes(link.json_message(Kind.GOODBYE, {"code": code, "cause": cause, "cure": cure}))
    await socket.close(code=close, message=code.encode())
