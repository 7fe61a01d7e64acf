"""The local endpoint: OpenAI's API on the loopback interface, sealed and paid behind it.

Whoever reaches it can spend what is allotted. So it listens on loopback, refuses requests that a web page could send
(a foreign Host or Origin, a body that is not declared as JSON), and asks for a bearer token where one is configured.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from client import control
from client.body import Body
from client.errors import AnswerFailed, BadRequest, ClientError, HomeError
from client.events import Done, Receipted, Text
from client.home import write_private
from client.sdk import Client
from client.trust import RefusedNode
from protocol.opening import Endpoint
from protocol.pricing import TOKENS_PER_PRICE

CONTROL_FILE = "sidecar.json"
NODE_HEADER = "Cocoon-Node"
"""Names the only node that a request may go to: its account, 64 hex digits."""
MAX_BODY_BYTES = 4 << 20
log = logging.getLogger("cocoon.client")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sidecar:
    """Serves one client until `close`. `token`: bearer token that the OpenAI paths demand; None for none."""

    def __init__(self, client: Client, *, token: str | None = None) -> None:
        self._client = client
        self._token = token
        self._control_token = secrets.token_urlsafe(32)
        self._runner: web.AppRunner | None = None
        self._control_file: Path | None = None
        self.url = ""

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_post("/cocoon/control", self._control)
        app.router.add_get("/healthz", _health)
        return app

    async def start(self, host: str, port: int) -> str:
        """The base URL, ending in /v1. Raises HomeError."""
        self._runner = web.AppRunner(self.application(), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise HomeError(f"cannot listen on {host}:{port} ({error.strerror})", "choose another --port") from error
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{bound}/v1"
        self._control_file = self._client.settings.home / CONTROL_FILE
        settings = self._client.settings.said()
        contact = {"url": f"http://{shown}:{bound}", "token": self._control_token, "settings": settings}
        write_private(self._control_file, json.dumps(contact) + "\n", replace=True)
        return self.url

    async def close(self) -> None:
        if self._control_file is not None:
            self._control_file.unlink(missing_ok=True)
        if self._runner is not None:
            await self._runner.cleanup()

    # ---- who may ask

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path != "/healthz":
                self._admit(request)
            return await handler(request)
        except ClientError as error:
            return _error(error)
        except web.HTTPException as error:
            return _error(BadRequest(f"{error.reason}", "check method, path and size"), error.status)
        except ConnectionError:
            raise
        except Exception as error:
            return _error(_failure(error))

    def _admit(self, request: web.Request) -> None:
        if request.method == "POST" and request.content_type != "application/json":
            # A page can send any other type without the browser asking first.
            raise BadRequest("the body is not declared as JSON", "send Content-Type: application/json")
        control_only = request.path.startswith("/cocoon/")
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        tokens = [self._control_token] if control_only or self._token is None else [self._control_token, self._token]
        if any(hmac.compare_digest(given, f"Bearer {token}".encode()) for token in tokens):
            return
        if control_only or self._token is not None:
            raise _Unauthorised("the bearer token is missing or wrong", "send Authorization: Bearer TOKEN")
        if not _is_local(_host_of(f"//{request.host}")):
            # DNS rebinding: a web page's own name that points at this machine.
            raise BadRequest("the Host header names another machine", "use http://127.0.0.1, or set token_file")
        origin = request.headers.get("Origin")
        if origin is not None and not _is_local(_host_of(origin)):
            raise BadRequest("a web page may not spend what is allotted", "call from a program on this machine")

    # ---- OpenAI

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, Endpoint.CHAT_COMPLETIONS)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, Endpoint.COMPLETIONS)

    async def _answer(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        body = Body.parse(await request.read(), endpoint)
        named = request.headers.get(NODE_HEADER)
        node = None if named is None else control.account_of(named)
        return await (self._stream(request, body, node) if body.stream else self._whole(body, node))

    async def _whole(self, body: Body, node: bytes | None) -> web.Response:
        raw: Mapping[str, Any] = {}
        async with aclosing(self._client.chat(body, node=node)) as events:
            async for event in events:
                if isinstance(event, Text):
                    raw = event.raw
                elif isinstance(event, Done):
                    receipt = event.receipt
                    headers = {"Cocoon-Receipt": receipt.hash.hex(), "Cocoon-Amount-Nano": str(receipt.amount_nano)}
                    return web.json_response({**raw, "cocoon": _cocoon(receipt)}, headers=headers)
        raise BadRequest("the answer was empty", "ask again")

    async def _stream(self, request: web.Request, body: Body, node: bytes | None) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        )
        # Chunks that end the answer wait for the receipt, which rides on the last of them; text never waits.
        waiting: dict[str, Any] | None = None
        latest: Mapping[str, Any] = {}
        try:
            async with aclosing(self._client.chat(body, node=node)) as events:
                async for event in events:
                    if isinstance(event, Text):
                        await _prepare(response, request)
                        if waiting is not None:
                            await _event(response, waiting)
                        waiting, latest = None, event.raw
                        if _ends(event.raw):
                            waiting = dict(event.raw)
                        else:
                            await _event(response, event.raw)
                    elif isinstance(event, Done):
                        await _prepare(response, request)
                        last = waiting or {**latest, "choices": []}
                        await _event(response, {**last, "cocoon": _cocoon(event.receipt)})
                        await response.write(b"data: [DONE]\n\n")
        except ClientError as error:
            if not response.prepared:
                raise
            await _event(response, _error_body(error))
        except ConnectionError:
            log.info("the caller went away in the middle of an answer")
            return response
        except Exception as error:
            if not response.prepared:
                raise
            await _event(response, _error_body(_failure(error)))
        await response.write_eof()
        return response

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": await self._known_models()})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = next((one for one in await self._known_models() if one["id"] == name), None)
        if found is None:
            raise _NotFound(f"no trusted node serves model {ascii(name)[:80]}", "see /v1/models")
        return web.json_response(found)

    async def _known_models(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for node in await self._client.nodes():
            if isinstance(node, RefusedNode):
                log.info("node %s is refused: %s", node.account.hex(), "; ".join(node.reasons))
                continue
            for one in node.models:
                terms = one.terms
                found.setdefault(
                    one.name,
                    {
                        "id": one.name,
                        "object": "model",
                        "created": 0,
                        "owned_by": "cocoon",
                        "context_length": one.context_tokens,
                        "pricing": {
                            "unit": f"nanoTON per {TOKENS_PER_PRICE} tokens",
                            "prompt": terms.prompt_price,
                            "cached": terms.cached_price,
                            "completion": terms.completion_price,
                            "reasoning": terms.reasoning_price,
                            "minimum_nano": terms.minimum_nano,
                        },
                        "tier": node.verdict.tier.name.lower(),
                        "simulated": node.simulated,
                        "measured": any(terms.model),
                        "node": node.account.hex(),
                    },
                )
        return list(found.values())

    # ---- the command line beside a running endpoint

    async def _control(self, request: web.Request) -> web.Response:
        try:
            raw = json.loads(await request.read())
        except (ValueError, RecursionError) as error:
            raise BadRequest("the command is not JSON", "use `cocoon client`") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("arguments"), dict):
            raise BadRequest("a command needs name and arguments", "use `cocoon client`")
        return web.json_response(await control.run(self._client, str(raw.get("command")), raw["arguments"]))


class _Internal(ClientError):
    code = "internal"
    promised = True


def _failure(error: Exception) -> _Internal:
    """A fault of ours. Its text may quote the prompt: only type and place are logged."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s at %s:%s", type(error).__name__, place.filename, place.lineno)
    return _Internal("the local endpoint failed", "ask again; if it happens again, report it with the endpoint's log")


class _Unauthorised(ClientError):
    code = "unauthorised"
    status = HTTPStatus.UNAUTHORIZED


class _NotFound(ClientError):
    code = "model-not-found"
    status = HTTPStatus.NOT_FOUND


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _prepare(response: web.StreamResponse, request: web.Request) -> None:
    if not response.prepared:
        await response.prepare(request)


async def _event(response: web.StreamResponse, raw: Mapping[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(raw, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n")


def _ends(raw: Mapping[str, Any]) -> bool:
    """A chunk with a finish reason, or the usage chunk after it."""
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices:
        return True
    return any(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def _cocoon(receipt: Receipted) -> dict[str, Any]:
    return {
        "receipt": receipt.hash.hex(),
        "amount_nano": receipt.amount_nano,
        "simulated": receipt.simulated,
        "measured": receipt.measured,
        "node": receipt.node.hex(),
    }


_TYPES = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.NOT_FOUND: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.PAYMENT_REQUIRED: "insufficient_quota",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


def _error_body(error: ClientError) -> dict[str, Any]:
    message = error.message if isinstance(error, AnswerFailed) else f"{error.cause}. Cure: {error.cure}"
    kind = _TYPES.get(HTTPStatus(error.status), "api_error")
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": error.code}}
    if isinstance(error, AnswerFailed):
        body["cocoon"] = {"receipt": error.receipt.hex(), "amount_nano": error.amount_nano}
    return body


def _error(error: ClientError, status: int | None = None) -> web.Response:
    headers = {"Cocoon-Receipt": error.receipt.hex()} if isinstance(error, AnswerFailed) else {}
    if error.promised:
        # It may be billed although it failed: a library that repeats by itself would pay again.
        headers["x-should-retry"] = "false"
    return web.json_response(_error_body(error), status=status or int(error.status), headers=headers)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half of an IPv6 address
        return ""


def _is_local(host: str) -> bool:
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
