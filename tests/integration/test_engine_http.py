"""The OpenAI-compatible engine against a scripted server: what is sent, and every way an upstream can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from worker.engine.api import Delta, Done, EngineError, RequestError, Usage
from worker.engine.openai_http import OpenAIConfig, OpenAIEngine

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "user": "tracking-id"}
SECRET = "THE-PROMPT-ECHOED"


def event(delta: dict[str, Any] | None, finish: str | None = None, completion: int = 0, cached: int = 0) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    details = {"cached_tokens": cached}
    usage = {"prompt_tokens": 7, "completion_tokens": completion, "prompt_tokens_details": details}
    return b"data: " + json.dumps({"id": "x", "created": 1, "choices": choices, "usage": usage}).encode() + b"\n\n"


GOOD = [event({"role": "assistant"}), event({"content": "Hel"}, completion=1), event({"content": "lo"}, "stop", 2)]
END = b"data: [DONE]\n\n"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Upstream:
    """A server that shows `chat` to chat requests and records what it was sent."""

    chat: Answer
    cached_in_probe: int = 0
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m", "max_model_len": 4096}])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer key":
            return web.json_response({}, status=401)
        return web.json_response({"data": self.models})

    async def on_completion(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        return await sse(request, [event(None, completion=1, cached=self.cached_in_probe), END])

    async def on_chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        try:
            return await self.chat(request)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise


async def sse(request: web.Request, pieces: list[bytes], *, cut: bool = False) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    if cut:
        assert request.transport is not None
        request.transport.abort()
    return response


@asynccontextmanager
async def serving(upstream: Upstream, **config: Any) -> AsyncIterator[OpenAIEngine]:
    app = web.Application()
    app.router.add_get("/v1/models", upstream.on_models)
    app.router.add_post("/v1/completions", upstream.on_completion)
    app.router.add_post("/v1/chat/completions", upstream.on_chat)
    async with TestServer(app, handler_cancellation=True) as server:
        engine = OpenAIEngine(OpenAIConfig(str(server.make_url("/v1")), **{"api_key": "key"} | config))
        try:
            yield engine
        finally:
            await engine.close()


async def pieces_of(engine: OpenAIEngine, request: dict[str, Any], salt: str = "") -> list[Delta | Done]:
    async with aclosing(engine.chat(request, cache_salt=salt)) as pieces:
        return [piece async for piece in pieces]


async def good(request: web.Request) -> web.StreamResponse:
    return await sse(request, [*GOOD, END])


async def test_streams_meters_and_reports_itself_unmeasured() -> None:
    upstream = Upstream(good)
    async with serving(upstream) as engine:
        info = await engine.start()
        assert (info.name, info.context_tokens, info.measured, info.model_hash) == ("m", 4096, False, bytes(32))
        out = await pieces_of(engine, CHAT, "salt-of-a")
    assert [piece.text for piece in out if isinstance(piece, Delta)] == ["", "Hel", "lo"]
    assert [piece.so_far.completion for piece in out if isinstance(piece, Delta)] == [0, 1, 2]
    assert out[-1] == Done(Usage(7, 0, 2), "stop")
    sent = upstream.bodies[-1]
    assert sent["cache_salt"] == "salt-of-a" and sent["model"] == "m" and "user" not in sent
    assert sent["stream"] and sent["stream_options"]["include_usage"]


async def test_whole_answers_come_in_one_piece() -> None:
    async with serving(Upstream(good)) as engine:
        await engine.start()
        out = await pieces_of(engine, {"messages": CHAT["messages"]})
    assert len(out) == 2 and isinstance(out[0], Delta)
    assert out[0].raw["choices"][0]["message"]["content"] == "Hello"


async def test_g15_without_a_salt_every_request_gets_its_own() -> None:
    upstream = Upstream(good)
    async with serving(upstream) as engine:
        await engine.start()
        for _ in range(3):
            await pieces_of(engine, CHAT)
    salts = [body["cache_salt"] for body in upstream.bodies]
    assert len(set(salts)) == len(salts) == 5 and all(salts)


async def test_g15_an_engine_that_ignores_the_salt_is_refused_at_start() -> None:
    async with serving(Upstream(good, cached_in_probe=3)) as engine:
        with pytest.raises(EngineError, match="across `cache_salt`"):
            await engine.start()
        with pytest.raises(EngineError, match="not running"):
            await pieces_of(engine, CHAT)


async def test_closing_the_stream_drops_the_connection() -> None:
    upstream = Upstream(good)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(GOOD[1])
            await asyncio.sleep(0.01)

    upstream.chat = endless
    async with serving(upstream) as engine:
        await engine.start()
        async with aclosing(engine.chat(CHAT)) as pieces:
            async for _ in pieces:
                break
        await asyncio.wait_for(upstream.gone.wait(), 2)


async def refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": SECRET}}, status=400)


async def overloaded(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": SECRET}}, status=503)


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/v1/chat/completions")


async def cut(request: web.Request) -> web.StreamResponse:
    return await sse(request, GOOD[:2], cut=True)


async def short(request: web.Request) -> web.StreamResponse:
    return await sse(request, GOOD[:2])


async def error_event(request: web.Request) -> web.StreamResponse:
    failure = {"error": {"message": SECRET, "code": 500}}
    return await sse(request, [GOOD[1], b"data: " + json.dumps(failure).encode() + b"\n\n"])


async def silent(request: web.Request) -> web.StreamResponse:
    response = await sse(request, GOOD[:2])
    await asyncio.sleep(30)
    return response


async def unfinished(request: web.Request) -> web.StreamResponse:
    return await sse(request, [*GOOD[:2], END])


async def not_json(request: web.Request) -> web.StreamResponse:
    return await sse(request, [b"data: <html>\n\n"])


@pytest.mark.parametrize(
    ("chat", "kind", "match", "delivered"),
    [
        (refuse, RequestError, "refused the request", 0),
        (overloaded, EngineError, "HTTP 503", 0),
        (redirect, EngineError, "redirects", 0),
        (cut, EngineError, "broke|closed the stream", 1),
        (short, EngineError, "closed the stream before its end", 1),
        (error_event, EngineError, "HTTP 500", 1),
        (silent, EngineError, "silent for", 1),
        (unfinished, EngineError, "finish reason", 1),
        (not_json, EngineError, "not JSON", 0),
    ],
)
async def test_g18_upstream_failures_name_cause_and_cure_and_keep_the_count(
    chat: Answer, kind: type[Exception], match: str, delivered: int
) -> None:
    async with serving(Upstream(chat), silence_limit_s=0.5) as engine:
        await engine.start()
        last: Delta | Done | None = None
        with pytest.raises(kind, match=match) as caught:
            async with aclosing(engine.chat(CHAT)) as pieces:
                async for piece in pieces:
                    last = piece
    error = caught.value
    assert isinstance(error, EngineError | RequestError) and error.cause and error.cure
    # An upstream's own words may echo the prompt: they stay out of what gets logged.
    assert SECRET not in str(error)
    assert (last.completion_tokens_so_far if isinstance(last, Delta) else 0) == delivered


async def test_g18_start_failures_name_cause_and_cure() -> None:
    async with serving(Upstream(good), api_key="wrong") as engine:
        with pytest.raises(EngineError, match=r"HTTP 401\. Correct the API key"):
            await engine.start()
    async with serving(Upstream(good), name="other") as engine:
        with pytest.raises(EngineError, match="serves m, wanted is other"):
            await engine.start()
    async with serving(Upstream(good, models=[{"id": "m"}])) as engine:
        with pytest.raises(EngineError, match="context_tokens"):
            await engine.start()
    async with serving(Upstream(good, models=[{"id": "m"}]), context_tokens=99) as engine:
        assert (await engine.start()).context_tokens == 99
    nobody = OpenAIEngine(OpenAIConfig("http://127.0.0.1:1/v1"))
    with pytest.raises(EngineError, match="cannot be reached"):
        await nobody.start()
