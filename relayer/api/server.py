"""The two listeners: one for clients, one for worker agents."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from protocol import link
from protocol.errors import Code, WireError
from protocol.job_link import PIECE_BYTES
from relayer.api.client import ClientApi
from relayer.api.hub import Hub
from relayer.api.jobs import JobApi
from relayer.api.relay import Relay
from relayer.config import Limits
from relayer.errors import ConfigError, Refusal
from relayer.log import log

MAX_CONTROL_BYTES = 64 << 10


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure leaves as code, cause and cure (G18); a bug of ours as `internal`, its trace only in the log."""
    try:
        response = await handler(request)
    except Refusal as refusal:
        headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after is not None else {}
        return _error_response(refusal.wire, refusal.status, headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        wire = WireError.of(
            Code.TOO_LARGE if error.status == 413 else Code.BAD_REQUEST, f"{error.status} {error.reason}"
        )
        return _error_response(wire, error.status, {})
    except ConnectionError:
        raise
    except Exception as error:
        log("handler failed", level=logging.ERROR, error=error, path=request.path)
        return _error_response(WireError.of(Code.INTERNAL), 500, {})
    if request.method == "GET" and not response.prepared:
        response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _error_response(error: WireError, status: int, headers: dict[str, str]) -> web.Response:
    body = json.dumps({"code": error.code, "cause": error.cause, "cure": error.cure})
    headers["Access-Control-Allow-Origin"] = "*"
    return web.Response(text=body, status=status, content_type="application/json", headers=headers)


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def client_app(api: ClientApi, relay: Relay, jobs: JobApi, limits: Limits, web_dir: Path | None) -> web.Application:
    app = web.Application(middlewares=[_errors], client_max_size=limits.max_request_bytes)
    app.router.add_get("/v1/status", api.status)
    app.router.add_get("/v1/nodes", api.nodes)
    app.router.add_get("/v1/nodes/{account}", api.node)
    app.router.add_post("/v1/requests", relay.handle)
    app.router.add_get("/v1/receipts", api.receipts)
    app.router.add_post("/v1/release", _small(api.release))
    app.router.add_routes(jobs.client_routes())
    app.router.add_get("/healthz", _healthz)
    if web_dir is not None:
        index = web_dir / "index.html"

        async def front(request: web.Request) -> web.FileResponse:
            return web.FileResponse(index)

        app.router.add_get("/", front)
        app.router.add_static("/", web_dir)
    return app


def _small(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    async def bounded(request: web.Request) -> web.StreamResponse:
        if request.content_length is None or request.content_length > MAX_CONTROL_BYTES:
            raise Refusal(Code.TOO_LARGE, f"at most {MAX_CONTROL_BYTES} bytes, with Content-Length")
        return await handler(request)

    return bounded


def worker_app(hub: Hub, jobs: JobApi) -> web.Application:
    app = web.Application(middlewares=[_errors], client_max_size=PIECE_BYTES + 1)
    app.router.add_get(link.PATH, hub.handle)
    app.router.add_routes(jobs.agent_routes())
    app.router.add_get("/healthz", _healthz)
    return app


class Listener:
    """One application on one address."""

    def __init__(self, app: web.Application, listen: str) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"{listen!r} is not host:port; for example 127.0.0.1:8780")
        self._host, self._port = host.strip("[]"), int(port)

    async def start(self) -> str:
        """The address that it listens on, host:port. Raises ConfigError when it is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, backlog=1024).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror}); stop who holds it or choose another"
            ) from error
        host, port = self._runner.addresses[0][:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
