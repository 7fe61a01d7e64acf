"""One toncenter v2 listener: REST and `/jsonRPC` over the same methods, with the faults that were ordered from it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.faults import Fault, Faults, Kind, lie
from devnet.messages import parse_account
from devnet.methods import METHODS
from wrappers.cells import CellError

log = logging.getLogger(__name__)

PREFIX = "/api/v2"
MAX_BODY_BYTES = 1 << 22


class Toncenter:
    """`name` is what the control API calls this listener."""

    def __init__(self, name: str, chain: DevnetChain) -> None:
        self.name = name
        self.faults = Faults()
        self._chain = chain

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{PREFIX}/jsonRPC", self._rpc),
            web.get(f"{PREFIX}/{{method}}", self._rest),
            web.post(f"{PREFIX}/{{method}}", self._rest),
        ]

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        try:
            query = await _object(request)
            method, params = query.get("method"), query.get("params") or {}
            if not isinstance(method, str) or not isinstance(params, dict):
                raise DevnetError("`method` must be a string and `params` an object")
        except DevnetError as error:
            return _refusal(422, str(error))
        return await self._answer(request, method, params, {"jsonrpc": "2.0", "id": query.get("id")})

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        params: dict[str, Any] = dict(request.query)
        if request.method == "POST":
            try:
                params |= await _object(request)
            except DevnetError as error:
                return _refusal(422, str(error))
        return await self._answer(request, request.match_info["method"], params, {})

    async def _answer(
        self, request: web.Request, method: str, params: Mapping[str, Any], envelope: dict[str, Any]
    ) -> web.StreamResponse:
        fault = self.faults.take(method, _account(params))
        if fault is not None and fault.kind is Kind.DROP:
            return _hang_up(request)
        if fault is not None and fault.kind is Kind.DELAY:
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.kind is Kind.ERROR:
            return _refusal(fault.status, fault.error, envelope)
        answer = METHODS.get(method)
        if answer is None:
            return _refusal(404, f"unknown method {method!r}: the devnet serves {', '.join(sorted(METHODS))}", envelope)
        try:
            result = answer(self._chain, params)
        except (DevnetError, CellError) as error:
            return _refusal(_status(error), _spoken(method, error), envelope)
        return web.json_response({"ok": True, "result": _told(result, fault), "@extra": "devnet", **envelope})


@web.middleware
async def report_failures(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A bug of the devnet must reach the client as an error that says so, not as a broken connection."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        log.exception("request %s failed", request.path)
        return _refusal(500, f"the devnet failed: {type(error).__name__}: {error}")


def _told(result: Any, fault: Fault | None) -> Any:
    return lie(result, fault.patch) if fault is not None and fault.kind is Kind.LIE else result


def _account(params: Mapping[str, Any]) -> bytes | None:
    try:
        return parse_account(str(params["address"])) if "address" in params else None
    except DevnetError:
        return None  # the method itself answers for the bad address


def _status(error: Exception) -> int:
    return 500 if isinstance(error, DevnetError) and str(error).startswith("LITE_SERVER") else 422


def _spoken(method: str, error: Exception) -> str:
    """Toncenter's own wording for a refused message, which clients match on."""
    if method.startswith("sendBoc"):
        return f"LITE_SERVER_UNKNOWN: cannot apply external message to current state : {error}"
    return str(error)


def _refusal(status: int, error: str, envelope: Mapping[str, Any] | None = None) -> web.Response:
    body = {"ok": False, "error": error, "code": status, "@extra": "devnet", **(envelope or {})}
    return web.json_response(body, status=status)


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DevnetError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DevnetError("the body must be a JSON object")
    return found
