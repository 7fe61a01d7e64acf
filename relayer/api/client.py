"""What clients read and ask besides their requests: nodes, receipts, releases, status."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from protocol import link, strict_json
from protocol.errors import Code
from protocol.link import MAX_RELEASE_SECONDS, BadMessage, Kind, LinkCode, Reason
from protocol.link_messages import ReceiptsQuery, ReleaseAnswer, ReleaseRequest
from protocol.pricing import table
from relayer.api.admission import Admission
from relayer.api.hub import Hub
from relayer.api.receipts import take_pushed
from relayer.api.worker_link import WorkerLink
from relayer.chain.mirror import Mirror, Seen
from relayer.config import Limits
from relayer.errors import Refusal
from relayer.log import log
from relayer.store.store import Store, StoredReceipt
from relayer.store.writer import Writer
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.rows import Row
from wrappers.signed import Release, verify

CLOCK_SLACK_SECONDS = 120
MAX_PAGE = 200
FETCH_SECONDS = 5.0
_NO_OFFER = Reason(LinkCode.NO_OFFER, "the node has published no offer yet", "wait, its evidence is being made")


class ClientApi:
    """`status` gives what only the shell knows: chain head, endpoints, configuration. `clock`: seconds by the chain."""

    def __init__(
        self,
        hub: Hub,
        mirror: Mirror,
        writer: Writer,
        admission: Admission,
        limits: Limits,
        status: Callable[[], Mapping[str, Any]],
        clock: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._mirror = mirror
        self._writer = writer
        self._admission = admission
        self._limits = limits
        self._status = status
        self._clock = clock

    async def status(self, request: web.Request) -> web.Response:
        links = self._hub.links()
        limits = self._limits
        body = dict(self._status()) | {
            "nodes": len(links),
            "in_flight": self._admission.in_flight,
            "simulated": any(one.offered is not None and one.offered.offer.says_simulated for one in links),
            "limits": {
                "max_request_bytes": limits.max_request_bytes,
                "in_flight_per_escrow": limits.in_flight_per_escrow,
                "requests_per_second_per_escrow": limits.requests_per_second_per_escrow,
                "first_frame_seconds": limits.first_frame_seconds,
                "idle_seconds": limits.idle_seconds,
            },
            "worker_urls": list(self._hub.origins),
        }
        return web.json_response(body)

    async def nodes(self, request: web.Request) -> web.Response:
        links = self._hub.links()
        if request.query.get("all") != "1":
            links = tuple(one for one in links if one.offered is not None and one.offered.live)
        return web.json_response({"nodes": [self._view(one) for one in links]})

    async def node(self, request: web.Request) -> web.Response:
        account = _account(request.match_info["account"])
        worker = self._hub.get(account)
        if worker is None:
            raise Refusal(Code.NODE_UNKNOWN)
        return web.json_response(self._view(worker))

    def _view(self, worker: WorkerLink) -> dict[str, Any]:
        offered = worker.offered
        seen = self._mirror.known_node(worker.node)
        error = _NO_OFFER if offered is None else offered.error
        return {
            "node": worker.node.hex(),
            "connected": True,
            "ready": offered is not None and offered.live,
            "offer": offered.json if offered is not None else None,
            "in_flight": worker.in_flight,
            "max_in_flight": worker.max_in_flight,
            "chain": None if seen is None or seen.state is None else _chain_view(seen, seen.state),
            "error": None if error is None else error.to_json(),
        }

    async def receipts(self, request: web.Request) -> web.Response:
        query = request.query
        escrow = _account(query.get("escrow", ""))
        allotment = _optional(query.get("allotment"), "allotment")
        key = _optional(query.get("key"), "key")
        after, limit = _count(query.get("after", "0"), "after"), _count(query.get("limit", str(MAX_PAGE)), "limit")
        if (allotment is None) != (key is None):
            raise Refusal(Code.BAD_REQUEST, "allotment and key go together", cure="name both, or neither")
        await self._authorise(request, escrow)
        limit = max(1, min(limit, MAX_PAGE))

        def stored(store: Store) -> tuple[StoredReceipt, ...]:
            return store.receipts(escrow, allotment=allotment, key=key, after=after, limit=limit + 1)

        found = await self._writer.read(stored)
        if allotment is not None and key is not None and len(found) <= limit:
            seq = found[-1].seq if found else after
            if await self._fetch_newer(escrow, allotment, key, seq, limit):
                found = await self._writer.read(stored)
        return web.json_response({"receipts": [_receipt(one) for one in found[:limit]], "more": len(found) > limit})

    async def _fetch_newer(self, escrow: bytes, allotment: bytes, key: bytes, after: int, limit: int) -> bool:
        """Asks the node's agent for receipts that this relayer missed while it was down; whether any were new."""
        rows = (await self._escrow(escrow)).rows
        node = next((node for node, row in rows.items() if row.allotment == allotment), None)
        worker = None if node is None else self._hub.get(node)
        if worker is None:
            return False
        query = ReceiptsQuery(allotment, key, after, limit)
        try:
            answer = await worker.ask(Kind.ASK_RECEIPTS, query.to_json(), FETCH_SECONDS)
            return await take_pushed(worker, answer, self._mirror, self._writer) > 0
        except (Refusal, BadMessage) as error:
            log("receipts not fetched", node=worker.node, reason=str(error))
            return False

    async def _authorise(self, request: web.Request, escrow: bytes) -> None:
        """Amounts of single requests are the client's affair: only the voucher key's holder reads them."""
        cure = "sign the query with the escrow's voucher key, by a right clock"
        try:
            at = int(request.headers.get("Cocoon-Time", ""))
            signature = bytes.fromhex(request.headers.get("Cocoon-Signature", ""))
        except ValueError as error:
            raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Time or Cocoon-Signature is missing", cure=cure) from error
        if abs(int(time.time()) - at) > CLOCK_SLACK_SECONDS:
            raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Time is not now", cure=cure)
        state = await self._escrow(escrow)
        message = link.receipts_request(network=self._mirror.network, escrow=escrow, at=at)
        if not link.signed_by(state.voucher_key, signature, message):
            raise Refusal(Code.VOUCHER_INVALID, "Cocoon-Signature does not hold", cure=cure)
        self._admission.spend(escrow)

    async def _escrow(self, account: bytes) -> EscrowState:
        await self._admission.meet(account)
        seen = await self._mirror.escrow(account, max_age_seconds=self._limits.mirror_seconds)
        if seen.state is None:
            seen = await self._mirror.escrow(account, max_age_seconds=1)
        if seen.state is None:
            raise Refusal(Code.ESCROW_UNKNOWN, seen.why_not)
        return seen.state

    async def release(self, request: web.Request) -> web.Response:
        body = await _json(request)
        try:
            ask = ReleaseRequest.from_json(body)
        except BadMessage as error:
            raise Refusal(Code.BAD_REQUEST, error.cause) from error
        now = self._clock()
        if not now < ask.expires_at <= now + MAX_RELEASE_SECONDS + CLOCK_SLACK_SECONDS:
            raise Refusal(Code.BAD_REQUEST, f"expires_at is not within {MAX_RELEASE_SECONDS} s from now")
        state = await self._escrow(ask.escrow)
        if not ask.signed_by(state.voucher_key, self._mirror.network):
            raise Refusal(Code.VOUCHER_INVALID, "the ask is not signed by the voucher key")
        self._admission.spend(ask.escrow)
        worker = self._hub.get(ask.node)
        if worker is None:
            raise Refusal(Code.NODE_UNKNOWN, cure="reclaim the row on chain instead: its close timer needs no consent")
        # Only what was understood: on the link, anything that is not strict JSON costs the node its connection.
        answer = await worker.ask(Kind.ASK_RELEASE, {"release_request": ask.to_json()})
        return _release_answer(answer, state.rows.get(ask.node), ask.allotment)


def _release_answer(answer: dict[str, Any], row: Row | None, allotment: bytes) -> web.Response:
    reason = Reason.from_json(answer.get("error"))
    if reason is not None:
        return web.json_response(reason.to_json(), status=409)
    try:
        said = ReleaseAnswer.from_json(answer)
    except BadMessage as fault:
        raise Refusal(Code.NODE_GONE, f"the agent's answer is not a release: {fault.cause}") from fault
    release = Release(said.allotment, said.row_seqno, said.allotted_nano)
    if row is None or said.allotment != allotment or not verify(release, said.signature, row.terms.release_key):
        raise Refusal(Code.NODE_GONE, "the agent's release does not hold for this row", cure="reclaim the row on chain")
    return web.json_response(said.to_json())


def _chain_view(seen: Seen[NodeState], state: NodeState) -> dict[str, Any]:
    return {
        "as_of": int(time.time() - (time.monotonic() - seen.read_at)),
        "epoch": state.epoch,
        "owner": state.owner.hex(),
        "signing_key": None if state.signing_key is None else state.signing_key.hex(),
        "attested_until": state.attested_until,
        "tier": state.tier,
        "measurement": None if state.measurement is None else state.measurement.hex(),
        "stake_nano": state.stake_nano,
        "unbond_at": state.unbond_at,
        "draining": state.draining,
        "prices": [table(terms) for terms in state.offers.values()],
        "requests": state.requests,
        "tokens": state.tokens,
        "earned_nano": state.earned_nano,
    }


def _receipt(one: StoredReceipt) -> dict[str, Any]:
    return {
        "node": one.node.hex(),
        "allotment": one.allotment.hex(),
        "key": one.key.hex(),
        "seq": one.seq,
        "cumulative_nano": one.cumulative_nano,
        "frame": base64.b64encode(one.payload).decode(),
    }


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = strict_json.parse(await request.read())
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, "the body is no strict JSON") from error
    if not isinstance(body, dict):
        raise Refusal(Code.BAD_REQUEST, "the body must be a JSON object")
    return body


def _account(text: str) -> bytes:
    value = _optional(text, "account")
    if value is None:
        raise Refusal(Code.BAD_REQUEST, "an account is missing", cure="give 64 hex digits")
    return value


def _optional(text: str | None, what: str) -> bytes | None:
    if text is None:
        return None
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise Refusal(Code.BAD_REQUEST, f"{what} is not 32 bytes in hex", cure="give 64 hex digits")
    return value


def _count(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise Refusal(Code.BAD_REQUEST, f"{what} is not a whole number")
    return int(text)
