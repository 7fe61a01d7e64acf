"""The client API (version 1) of one node, for clients that dial it directly: a relayer's, without the relayer.

Nothing is decided here: requests go to the desk and releases to `worker.agent.releases`, as from a relayer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from chain.api import ChainError
from protocol import link
from protocol.errors import Code, WireError
from protocol.link import MAX_RECEIPTS, BadMessage, LinkCode, Reason
from protocol.link_messages import ReleaseAnswer, ReleaseRequest
from protocol.receipts import SignedReceipt
from worker.agent.front import Front
from worker.agent.questions import Refusal
from worker.agent.store import StoreError
from worker.agent.streams import Answering, Sink
from worker.agent.view import ChainView

log = logging.getLogger(__name__)

FRAMES_TYPE = "application/vnd.cocoon.frames"
MAX_REQUEST_BYTES = (2 << 20) + 4096
BODY_SECONDS = 30.0
WRITE_SECONDS = 60.0
MAX_WAITING_BYTES = 8 << 20
"""Of an answer that its reader does not take; then the connection ends, and a repeat finds the answer stored."""
CLOCK_SLACK_SECONDS = 120
_NO_OFFER = Reason(LinkCode.NO_OFFER, "the node has published no offer yet", "wait, its evidence is being made")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(Exception):
    def __init__(self, status: int, reason: Reason) -> None:
        super().__init__(reason.cause)
        self.status = status
        self.reason = reason


class _Queue(Sink):
    """One answer on its way to a client that reads it here."""

    def __init__(self) -> None:
        self._parts: asyncio.Queue[tuple[bytes, bool] | None] = asyncio.Queue()
        self._waiting = 0

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        self._waiting += len(frames)
        self._parts.put_nowait(None if self._waiting > MAX_WAITING_BYTES else (frames, ends))

    async def next(self) -> tuple[bytes, bool] | None:
        """Frames, and whether they are the last. None: the reader was too slow."""
        part = await self._parts.get()
        if part is not None:
            self._waiting -= len(part[0])
        return part


class DirectApi:
    def __init__(self, front: Front, view: ChainView, clock: Callable[[], float] = time.time) -> None:
        self._front = front
        self._view = view
        self._clock = clock

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[_refusals])
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/nodes", self._nodes),
                web.get("/v1/nodes/{account}", self._node),
                web.get("/v1/receipts", self._receipts),
                web.post("/v1/release", self._release),
                web.post("/v1/requests", self._request),
            ]
        )
        return app

    # ---- what clients read

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"direct": True, "nodes": 1, "limits": {"max_request_bytes": MAX_REQUEST_BYTES}})

    async def _nodes(self, _: web.Request) -> web.Response:
        return web.json_response({"nodes": [self._own()]})

    async def _node(self, request: web.Request) -> web.Response:
        if request.match_info["account"] != self._view.account.hex():
            raise _refused(404, Code.NODE_UNKNOWN)
        return web.json_response(self._own())

    def _own(self) -> dict[str, Any]:
        offer = self._front.offer()
        error = _NO_OFFER.to_json() if offer is None else None
        return {
            "node": self._view.account.hex(),
            "connected": True,
            "ready": offer is not None,
            "offer": offer,
            "error": error,
        }

    async def _receipts(self, request: web.Request) -> web.Response:
        escrow, allotment, key = (_octets(request.query, name) for name in ("escrow", "allotment", "key"))
        after, limit = (_whole(request.query.get(name, "0"), name) for name in ("after", "limit"))
        limit = max(1, min(limit or MAX_RECEIPTS, MAX_RECEIPTS))
        await self._authorise(request, escrow)
        found = await self._front.receipts(allotment, key, after, limit + 1)
        mine = [one.payload for one in found[:limit] if one.escrow == escrow]
        rows = [{"seq": SignedReceipt.from_bytes(each).receipt.seq, "frame": _base64(each)} for each in mine]
        return web.json_response({"receipts": rows, "more": len(found) > limit})

    async def _authorise(self, request: web.Request, escrow: bytes) -> None:
        """Amounts of single requests are the client's affair: only the voucher key's holder reads them."""
        try:
            at = int(request.headers.get("Cocoon-Time", ""))
            signature = bytes.fromhex(request.headers.get("Cocoon-Signature", ""))
        except ValueError as error:
            raise _refused(402, Code.VOUCHER_INVALID, "Cocoon-Time or Cocoon-Signature is missing") from error
        if abs(int(self._clock()) - at) > CLOCK_SLACK_SECONDS:
            raise _refused(402, Code.VOUCHER_INVALID, "Cocoon-Time is not now")
        state = await self._view.escrow(escrow)
        if state is None:
            raise _refused(404, Code.ESCROW_UNKNOWN)
        message = link.receipts_request(network=self._view.network, escrow=escrow, at=at)
        if not link.signed_by(state.voucher_key, signature, message):
            raise _refused(402, Code.VOUCHER_INVALID, "Cocoon-Signature does not hold")

    async def _release(self, request: web.Request) -> web.Response:
        try:
            ask = ReleaseRequest.from_json(json.loads(await _body(request)))
        except (ValueError, RecursionError, BadMessage) as error:
            raise _refused(400, Code.BAD_REQUEST, str(error)) from error
        allotted, signature = await self._front.release(ask)
        return web.json_response(ReleaseAnswer(ask.allotment, ask.row_seqno, allotted, signature).to_json())

    # ---- requests

    async def _request(self, request: web.Request) -> web.StreamResponse:
        sealed = await _body(request)
        sink = _Queue()
        answering = await self._front.answer(sealed, sink)
        response = web.StreamResponse(headers={"Content-Type": FRAMES_TYPE, "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            await self._stream(sink, response)
        except (OSError, TimeoutError):
            _abandon(answering, sink)
            raise
        except asyncio.CancelledError:
            _abandon(answering, sink)
            raise
        return response

    async def _stream(self, sink: _Queue, response: web.StreamResponse) -> None:
        while True:
            part = await sink.next()
            if part is None:
                raise ConnectionAbortedError("the client reads too slowly")
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(part[0])
            if part[1]:
                await response.write_eof()
                return


def _abandon(answering: Answering | None, sink: Sink) -> None:
    """Nobody reads any more: no further token is made for it, and what there is stays stored."""
    if answering is not None:
        answering.cancel(sink)
        answering.leave(sink)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@web.middleware
async def _refusals(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refused as refused:
        return web.json_response(refused.reason.to_json(), status=refused.status)
    except Refusal as refusal:
        return web.json_response(refusal.reason.to_json(), status=409)
    except ChainError as error:
        return web.json_response(_reason(Code.CHAIN_UNCERTAIN, str(error)).to_json(), status=503)
    except StoreError as error:
        log.error("%s", error)
        return web.json_response(
            _reason(Code.INTERNAL, "the node's receipt store does not answer").to_json(), status=503
        )


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise _refused(504, Code.TIMEOUT, "the request did not come in time") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _refused(413, Code.TOO_LARGE) from error


def _reason(code: Code, detail: str = "") -> Reason:
    wire = WireError.of(code, detail)
    return Reason(wire.code, wire.cause, wire.cure)


def _refused(status: int, code: Code, detail: str = "") -> _Refused:
    return _Refused(status, _reason(code, detail))


def _octets(query: Mapping[str, str], name: str) -> bytes:
    try:
        value = bytes.fromhex(query.get(name, ""))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise _refused(400, Code.BAD_REQUEST, f"{name} is not 32 bytes in hex")
    return value


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise _refused(400, Code.BAD_REQUEST, f"{name} is not a whole number")
    return int(text)
