"""Batch jobs at the relayer: clients leave sealed inputs and fetch results, agents the other way round.

Nothing is decided here. Signatures keep strangers from filling the disk; hashes are checked where a blob becomes whole
so that nobody fetches in vain, and again by whoever opens it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from protocol import job_link, link, strict_json
from protocol.errors import Code, ProtocolError
from protocol.job_link import PATH, PIECE_BYTES, Entry
from relayer.api.admission import Admission
from relayer.chain.mirror import Mirror
from relayer.config import Limits
from relayer.errors import Refusal
from relayer.store.shelf import INPUT, Blob, Shelf, ShelfRefuses, result_name
from wrappers.addresses import Kind, child_address

CLOCK_SLACK_SECONDS = 120
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JobApi:
    def __init__(self, shelf: Shelf, mirror: Mirror, admission: Admission, limits: Limits) -> None:
        self._shelf = shelf
        self._mirror = mirror
        self._admission = admission
        self._limits = limits

    def client_routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{PATH}/{{job}}", _told(self._leave)),
            web.get(f"{PATH}/{{job}}", _told(self._status)),
            web.put(f"{PATH}/{{job}}/input", _told(self._put_input)),
            web.get(f"{PATH}/{{job}}/result", _told(self._get_result)),
        ]

    def agent_routes(self) -> list[web.RouteDef]:
        return [
            web.get(PATH, _told(self._list)),
            web.get(f"{PATH}/{{job}}/input", _told(self._get_input)),
            web.put(f"{PATH}/{{job}}/result", _told(self._put_result)),
        ]

    # ---- clients

    async def _leave(self, request: web.Request) -> web.Response:
        raw = await _body(request, job_link.MAX_ENTRY_BYTES)
        try:
            entry = Entry.from_json(_object(raw))
        except ProtocolError as error:
            raise Refusal(Code.BAD_REQUEST, error.cause) from error
        now = int(time.time())
        if entry.job != _octets(request.match_info["job"]):
            raise Refusal(Code.BAD_REQUEST, "the entry is for another job")
        if entry.job != child_address(self._mirror.registry, Kind.JOB, entry.escrow, entry.index):
            raise Refusal(Code.BAD_REQUEST, "the job's account is not that of this escrow and index")
        if entry.keep_until > now + job_link.MAX_KEPT_SECONDS:
            raise Refusal(Code.BAD_REQUEST, f"keep_until is over {job_link.MAX_KEPT_SECONDS} s from now")
        await self._client(request, entry.escrow, entry.job, hashlib.sha256(raw).digest())
        await asyncio.to_thread(self._shelf.put, entry, now)
        return await self._status_of(entry)

    async def _status(self, request: web.Request) -> web.Response:
        return await self._status_of(await self._own(request))

    async def _status_of(self, entry: Entry) -> web.Response:
        def read() -> dict[str, object]:
            results = {
                node.hex(): self._shelf.size(entry.job, result_name(node))
                for node in sorted(entry.nodes)
                if self._shelf.is_whole(entry.job, result_name(node))
            }
            here = self._shelf.size(entry.job, INPUT)
            return {"input_bytes": here, "input_size": entry.parsed.size, "results": results}

        return web.json_response(await asyncio.to_thread(read))

    async def _put_input(self, request: web.Request) -> web.Response:
        entry = await self._own(request)
        spec = entry.parsed
        return await self._append(request, entry.job, Blob(INPUT, spec.size, spec.input))

    async def _get_result(self, request: web.Request) -> web.Response:
        entry = await self._own(request)
        return await self._piece(request, entry.job, result_name(_octets(request.query.get("node", ""))))

    async def _own(self, request: web.Request) -> Entry:
        entry = self._shelf.entry(_octets(request.match_info["job"]))
        await self._client(request, entry.escrow, entry.job, bytes(32))
        return entry

    async def _client(self, request: web.Request, escrow: bytes, job: bytes, entry: bytes) -> None:
        at, signature = _signed(request)
        await self._admission.meet(escrow)
        seen = await self._mirror.escrow(escrow, max_age_seconds=self._limits.mirror_seconds)
        if seen.state is None:
            raise Refusal(Code.ESCROW_UNKNOWN, seen.why_not)
        message = job_link.post_request(network=self._mirror.network, escrow=escrow, job=job, entry=entry, at=at)
        if not link.signed_by(seen.state.voucher_key, signature, message):
            raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Signature does not hold", cure=_SIGN)
        self._admission.spend(escrow)

    # ---- agents

    async def _list(self, request: web.Request) -> web.Response:
        node, after = await self._agent(request), request.query.get("after", "")
        found, more = await asyncio.to_thread(self._shelf.for_node, node, _octets(after) if after else b"")
        return web.json_response({"jobs": [one.to_json() for one in found], "more": more})

    async def _get_input(self, request: web.Request) -> web.Response:
        await self._agent(request)
        return await self._piece(request, _octets(request.match_info["job"]), INPUT)

    async def _put_result(self, request: web.Request) -> web.Response:
        job, digest = _octets(request.match_info["job"]), _octets(request.query.get("hash", ""))
        node, entry = await self._agent(request, job, digest), self._shelf.entry(job)
        if node not in entry.nodes:
            raise Refusal(Code.BAD_REQUEST, "the job is not sealed to this node")
        return await self._append(request, entry.job, Blob(result_name(node), _whole(request, "size"), digest))

    async def _agent(self, request: web.Request, job: bytes = bytes(32), result: bytes = bytes(32)) -> bytes:
        node = _octets(request.headers.get("Cocoon-Node", ""))
        at, signature = _signed(request)
        seen = await self._mirror.node(node, max_age_seconds=self._limits.mirror_seconds)
        message = job_link.node_request(network=self._mirror.network, node=node, at=at, job=job, result=result)
        if seen.state is None or not link.signed_by(seen.state.release_key, signature, message):
            raise Refusal(Code.VOUCHER_INVALID, "not signed by the node's release key", cure="use the node's own key")
        return node

    # ---- pieces

    async def _append(self, request: web.Request, job: bytes, blob: Blob) -> web.Response:
        data = await _body(request, PIECE_BYTES)
        have = await asyncio.to_thread(self._shelf.append, job, blob, _whole(request, "offset"), data)
        return web.json_response({"bytes": have})

    async def _piece(self, request: web.Request, job: bytes, name: str) -> web.Response:
        data = await asyncio.to_thread(self._shelf.read, job, name, _whole(request, "offset"))
        return web.Response(body=data, content_type="application/octet-stream")


_SIGN = "sign with the escrow's voucher key, by a right clock"


def _told(handler: _Handler) -> _Handler:
    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ShelfRefuses as no:
            code = {404: Code.BAD_REQUEST, 413: Code.TOO_LARGE, 429: Code.RATE_LIMITED, 503: Code.NODE_BUSY}
            body = {"code": code.get(no.status, Code.BAD_REQUEST), "cause": no.cause, "cure": no.cure}
            return web.json_response(body, status=no.status)

    return told


def _signed(request: web.Request) -> tuple[int, bytes]:
    try:
        at = int(request.headers.get("Cocoon-Time", ""))
        signature = bytes.fromhex(request.headers.get("Cocoon-Signature", ""))
    except ValueError as error:
        raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Time or Cocoon-Signature is missing", cure=_SIGN) from error
    if abs(int(time.time()) - at) > CLOCK_SLACK_SECONDS:
        raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Time is not now", cure=_SIGN)
    return at, signature


async def _body(request: web.Request, most: int) -> bytes:
    if request.content_length is None or request.content_length > most:
        raise Refusal(Code.TOO_LARGE, f"at most {most} bytes, with Content-Length")
    return await request.read()


def _object(raw: bytes) -> dict[str, object]:
    try:
        body = strict_json.parse(raw)
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, "the entry is not strict JSON") from error
    if not isinstance(body, dict):
        raise Refusal(Code.BAD_REQUEST, "the entry is not a JSON object")
    return body


def _octets(text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise Refusal(Code.BAD_REQUEST, "a job, a node and a hash are 64 hex digits each")
    return value


def _whole(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise Refusal(Code.BAD_REQUEST, f"{name} is not a whole number")
    return int(text)
