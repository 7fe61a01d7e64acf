"""Any OpenAI-compatible server over HTTP: vLLM, SGLang, llama.cpp's own. Used for children of the enclave and for URLs.

This class trusts its address. Whether an address may be used at all is decided in `choose`, whether a child listens
there in `child`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from worker.engine.api import UNMEASURED, Delta, Done, EngineError, ModelInfo, RequestError
from worker.engine.request import is_chat, validate
from worker.engine.sse import SseReader
from worker.engine.stream import Meter, read_usage

_CONNECT_LIMIT_S = 10.0
_DETAIL_CHARS = 4096
_MAX_JSON_BYTES = 4 << 20
_PROBE_WORDS = 200


@dataclass(frozen=True, slots=True)
class OpenAIConfig:
    """`base_url` ends in `/v1`. `name` None takes the only model served, `context_tokens` None asks the server.

    `model_hash` is what whoever started the server computed from its files; zero when nobody did.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    name: str | None = None
    context_tokens: int | None = None
    model_hash: bytes = UNMEASURED
    silence_limit_s: float = 300.0


class OpenAIEngine:
    """A server that already runs. See `Engine`."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._info: ModelInfo | None = None

    async def start(self) -> ModelInfo:
        if self._info is not None:
            return self._info
        config = self._config
        headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            # llama.cpp closes idle connections without notice, which would fail the next request.
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT_S, sock_read=config.silence_limit_s),
        )
        try:
            name, context_tokens = _served(await self._get_json("/models"), config)
            measured = config.model_hash != UNMEASURED
            info = ModelInfo(name, config.model_hash, context_tokens, measured)
            await self._check_isolation(info)
        except BaseException:
            await self.close()
            raise
        self._info = info
        return info

    async def chat(self, request: Mapping[str, Any], *, cache_salt: str = "") -> AsyncGenerator[Delta | Done, None]:
        if self._info is None:
            raise EngineError("The engine is not running", "Call start() first, and do not use it after close()")
        clean = validate(request)
        meter = Meter(clean, self._info)
        body = _body(clean, self._info.name, cache_salt)
        async with aclosing(self._events("/chat/completions" if is_chat(clean) else "/completions", body)) as events:
            async for event in events:
                if "error" in event:
                    raise _event_error(event["error"])
                if delta := meter.feed(event):
                    yield delta
        for last in meter.finish():
            yield last

    async def close(self) -> None:
        session, self._session, self._info = self._session, None, None
        if session is not None:
            await session.close()

    async def _check_isolation(self, info: ModelInfo) -> None:
        """Ask the same with two salts: a cached token in the second answer is a prefix shared across tenants (G15)."""
        # Long enough to fill several cache blocks, random so that no earlier probe explains a hit.
        words = " ".join(secrets.token_hex(2) for _ in range(min(_PROBE_WORDS, info.context_tokens // 16)))
        request = {"prompt": words, "max_tokens": 1, "temperature": 0}
        for _ in range(2):
            body = _body(request, info.name, secrets.token_hex(16))
            async with aclosing(self._events("/completions", body)) as events:
                async for event in events:
                    if "error" in event:
                        raise _event_error(event["error"])
                    usage = event.get("usage")
                    if isinstance(usage, dict) and read_usage(usage).cached:
                        raise EngineError(
                            "The engine shares cached prompt prefixes across `cache_salt`",
                            "Use an engine that honours `cache_salt` (vLLM, SGLang), or turn its prefix cache off",
                        )

    async def _get_json(self, path: str) -> Mapping[str, Any]:
        async with aclosing(self._bytes("GET", path, None)) as pieces:
            data = b""
            async for piece in pieces:
                data += piece
                if len(data) > _MAX_JSON_BYTES:
                    raise EngineError(f"The engine's answer to {path} is too long", "Check the engine's address")
        try:
            decoded = json.loads(data)
        except ValueError as error:
            raise EngineError(f"The engine's answer to {path} is not JSON", "Check the engine's address") from error
        if not isinstance(decoded, dict):
            raise EngineError(f"The engine's answer to {path} is no object", "Check the engine's address")
        return decoded

    async def _events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        reader = SseReader()
        async with aclosing(self._bytes("POST", path, body)) as pieces:
            async for piece in pieces:
                for event in reader.feed(piece):
                    yield event
                if reader.ended:
                    return
        raise EngineError(
            "The engine closed the stream before its end", "Check the engine, then send the request again"
        )

    async def _bytes(self, method: str, path: str, body: Mapping[str, Any] | None) -> AsyncGenerator[bytes, None]:
        if self._session is None:
            raise EngineError("The engine is not running", "Call start() first, and do not use it after close()")
        try:
            # A redirect would carry the plaintext to an address that nobody checked.
            response = await self._session.request(
                method, self._config.base_url + path, json=body, allow_redirects=False
            )
            try:
                if response.status != 200:
                    raise _status_error(
                        response.status, (await response.content.read(_DETAIL_CHARS)).decode(errors="replace")
                    )
                async for piece in response.content.iter_any():
                    yield piece
            finally:
                # Dropping the connection is what makes the server abort the generation.
                response.close()
        except TimeoutError as error:
            raise EngineError(
                f"The engine was silent for {self._config.silence_limit_s:g} s",
                "Check that it runs and is not overloaded, then send the request again",
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise EngineError(
                "The engine cannot be reached",
                "Start it, or correct its address in the configuration",
                detail=str(error),
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineError(
                "The connection to the engine broke",
                "Check that it still runs, then send the request again",
                detail=str(error),
            ) from error


def _served(models: Mapping[str, Any], config: OpenAIConfig) -> tuple[str, int]:
    """Name and context of the model to use, out of the server's `/v1/models`."""
    listed = models.get("data")
    served = (
        {str(model["id"]): model for model in listed if isinstance(model, dict) and "id" in model}
        if isinstance(listed, list)
        else {}
    )
    name = config.name if config.name is not None else next(iter(served), None)
    if name is None or name not in served or (config.name is None and len(served) > 1):
        raise EngineError(
            f"The engine serves {', '.join(sorted(served)) or 'no model'}, wanted is {config.name or 'exactly one'}",
            "Correct `name` in the engine's configuration",
        )
    context = config.context_tokens or served[name].get("max_model_len")
    if not isinstance(context, int) or context < 2:
        raise EngineError(
            "The engine does not say how long its context is", "Set `context_tokens` in the engine's configuration"
        )
    return name, context


def _body(clean: Mapping[str, Any], name: str, cache_salt: str) -> dict[str, Any]:
    body = {key: value for key, value in clean.items() if key != "user"}
    return body | {
        "model": name,
        "stream": True,
        # vLLM and SGLang then count in every chunk, so that a broken stream can be billed; others ignore it.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        # vLLM and SGLang key their prefix cache with it; a fresh one shares with nobody.
        "cache_salt": cache_salt or secrets.token_hex(32),
        # llama.cpp knows neither: there it counts in its timings, and reuses nothing.
        "timings_per_token": True,
        "cache_prompt": False,
    }


def _status_error(status: int, detail: str) -> Exception:
    if status in (400, 413, 422):
        return RequestError("The engine refused the request", "See the detail and change the request", detail=detail)
    cures = {
        401: "Correct the API key file in the engine's configuration",
        403: "Correct the API key file in the engine's configuration",
        404: "Correct the engine's address and model name",
        429: "Wait, then send the request again",
        503: "Wait until it is ready, then send the request again",
    }
    if 300 <= status < 400:
        return EngineError(f"The engine redirects (HTTP {status})", "Configure its final address: none is followed")
    return EngineError(f"The engine answered HTTP {status}", cures.get(status, "Check the engine"), detail=detail)


def _event_error(error: Any) -> Exception:
    detail = str(error.get("message", "") if isinstance(error, dict) else error)[:_DETAIL_CHARS]
    code = error.get("code") if isinstance(error, dict) else None
    return _status_error(code if isinstance(code, int) else 500, detail)
