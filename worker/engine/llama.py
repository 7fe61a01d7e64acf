"""llama.cpp inside the enclave's process (xllamacpp): no weights, prompt or answer leaves the process.

Facts of xllamacpp this rests on, each held by a test: the handler blocks its thread and calls back in it; a true
result of the callback aborts the generation; `id_slot` pins a slot; `cache_prompt: false` recomputes the whole prompt;
`return_progress` calls back during prefill, so that an abort need not wait for the first token.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engine.api import Delta, Done, EngineError, ModelInfo, RequestError
from worker.engine.bridge import Bridge
from worker.engine.request import is_chat, max_tokens, validate
from worker.engine.slots import Lease, SlotPool
from worker.engine.stream import Meter
from worker.engine.weights import SMOLLM2_NAME, SMOLLM2_SHA256, load_sealed, packaged_smollm2

# Between the engine's thread and the event loop; a slow consumer holds the thread, not memory.
_BUFFERED_CHUNKS = 64
# Also the granularity of an abort during prefill.
_PREFILL_BATCH_TOKENS = 256
_CONTEXT_UNIT_TOKENS = 256
# Their grammars are compiled by native code in this process from text that the client wrote; llama.cpp also prints the
# text of one that it cannot parse. Neither may happen inside the enclave.
_NOT_OFFERED = ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """`weights` None is the embedded SmolLM2. `context_tokens` is per request; `parallel` requests run at once."""

    weights: Path | None = None
    weights_sha256: bytes = SMOLLM2_SHA256
    name: str = SMOLLM2_NAME
    parallel: int = 8
    context_tokens: int = 2048
    threads: int = field(default_factory=lambda: max(1, usable_cores() - 1))
    silence_limit_s: float = 300.0

    def __post_init__(self) -> None:
        # llama.cpp rounds a slot's context up to this; a request could then use more than its bounds say.
        if self.context_tokens < _CONTEXT_UNIT_TOKENS or self.context_tokens % _CONTEXT_UNIT_TOKENS:
            raise EngineError(
                f"`engine.context_tokens` is {self.context_tokens}",
                f"Set it to a multiple of {_CONTEXT_UNIT_TOKENS}",
            )


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class LlamaEngine:
    """The embedded engine. See `Engine`."""

    def __init__(self, config: LlamaConfig) -> None:
        self._config = config
        self._slots = SlotPool(config.parallel)
        self._server: Any = None
        self._info: ModelInfo | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: dict[asyncio.Future[None], Bridge] = {}

    @property
    def free_slots(self) -> int:
        return self._slots.free

    async def start(self) -> ModelInfo:
        if self._info is not None:
            return self._info
        # One thread per slot: the handler blocks.
        threads = ThreadPoolExecutor(self._config.parallel, thread_name_prefix="llama")
        try:
            digest, self._server = await asyncio.get_running_loop().run_in_executor(threads, _load, self._config)
        except BaseException:
            threads.shutdown(wait=False)
            raise
        self._threads = threads
        self._info = ModelInfo(self._config.name, digest, self._config.context_tokens, measured=True)
        return self._info

    async def chat(self, request: Mapping[str, Any], *, cache_salt: str = "") -> AsyncGenerator[Delta | Done, None]:
        if self._info is None or self._server is None:
            raise EngineError("The engine is not running", "Call start() first, and do not use it after close()")
        clean = _offered(validate(request))
        meter = Meter(clean, self._info)
        lease = await self._slots.acquire(cache_salt)
        if self._server is None:
            self._slots.release(lease.slot, "")
            raise _closed()
        bridge = self._launch(self._body(clean, lease), lease, is_chat(clean), cache_salt)
        started = False
        try:
            while not isinstance(item := await self._next(bridge), _End):
                started = True
                if "error" in item:
                    raise _refused(item["error"])
                if delta := meter.feed(item):
                    yield delta
            if item.error is not None:
                raise _broken(item.error, started)
            if self._server is None:
                raise _closed()
            for last in meter.finish():
                yield last
        finally:
            bridge.close()

    async def close(self) -> None:
        server, self._server, self._info = self._server, None, None
        running = dict(self._running)
        for bridge in running.values():
            bridge.close()
        if running:
            await asyncio.wait(running)
        if self._threads is not None:
            threads, self._threads = self._threads, None
            if server is not None:
                holder = [server]
                del server
                # The destructor joins llama.cpp's loop thread.
                await asyncio.get_running_loop().run_in_executor(threads, holder.clear)
            threads.shutdown()

    async def _next(self, bridge: Bridge) -> Any:
        try:
            return await asyncio.wait_for(bridge.pull(), self._config.silence_limit_s)
        except TimeoutError as error:
            raise EngineError(
                f"The engine was silent for {self._config.silence_limit_s:g} s",
                "Send the request again; if it persists, restart the worker or lower its parallel requests",
            ) from error

    def _body(self, clean: Mapping[str, Any], lease: Lease) -> dict[str, Any]:
        limit = max_tokens(clean)
        body = {key: value for key, value in clean.items() if key not in ("user", "n", "max_completion_tokens")}
        if "seed" in body:
            # llama.cpp's seed has 32 bits, of which the greatest means "random".
            body["seed"] %= 0xFFFFFFFF
        return body | {
            "max_tokens": self._config.context_tokens if limit is None else min(limit, self._config.context_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
            "timings_per_token": True,
            "return_progress": True,
            "id_slot": lease.slot,
            "cache_prompt": lease.reuse,
        }

    def _launch(self, body: dict[str, Any], lease: Lease, chat: bool, salt: str) -> Bridge:
        bridge = Bridge(_BUFFERED_CHUNKS)
        owner = ""
        handler = self._server.handle_chat_completions if chat else self._server.handle_completions

        def on_chunk(chunk: dict[str, Any]) -> bool:
            nonlocal owner
            # From the first generated token on, the slot's cache is this prompt's and nobody else's.
            if chunk.get("timings", {}).get("predicted_n"):
                owner = salt
            return bridge.push(chunk)

        def on_end(future: asyncio.Future[None]) -> None:
            del self._running[future]
            self._slots.release(lease.slot, owner)
            bridge.end(_End(future.exception()))

        assert self._threads is not None
        future = asyncio.get_running_loop().run_in_executor(self._threads, handler, body, on_chunk)
        self._running[future] = bridge
        future.add_done_callback(on_end)
        return bridge


def _offered(clean: dict[str, Any]) -> dict[str, Any]:
    for key in _NOT_OFFERED:
        if key in clean:
            raise RequestError(f"`{key}` is not offered by the embedded engine", "Drop it, or choose another node")
    if clean.get("response_format", {}).get("type") == "json_schema":
        raise RequestError(
            "`response_format` with a schema is not offered by the embedded engine",
            "Use json_object, or choose another node",
        )
    return clean


def _closed() -> EngineError:
    return EngineError("The engine was closed during the request", "Send it again when the worker is back")


def _refused(error: Mapping[str, Any]) -> Exception:
    detail = str(error.get("message", ""))
    if error.get("type") == "exceed_context_size_error":
        return RequestError(
            f"The prompt has {error.get('n_prompt_tokens')} tokens, the context holds {error.get('n_ctx')}",
            "Shorten the prompt",
            detail=detail,
        )
    if error.get("code") in (400, 404, 413, 422):
        return RequestError("The engine refused the request", "See the detail and change the request", detail=detail)
    return EngineError("The engine failed to answer", "Send the request again", detail=detail)


def _broken(error: BaseException, started: bool) -> Exception:
    # Before its first chunk xllamacpp raises these for bodies that it cannot use: chat template, roles, encoding.
    if not started and isinstance(error, ValueError | TypeError | RuntimeError):
        return RequestError("The engine cannot use the request", "Change messages or prompt", detail=str(error))
    return EngineError("The engine failed in the middle of its work", "Send the request again", detail=str(error))


def _load(config: LlamaConfig) -> tuple[bytes, Any]:
    # ggml's OpenMP threads spin at barriers: with a busy neighbour on the same cores that costs a factor of twenty.
    # Read once, when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import xllamacpp

    weights = load_sealed(config.weights or packaged_smollm2(), config.weights_sha256)
    try:
        return weights.sha256, xllamacpp.Server(_params(xllamacpp, config, weights.path))
    except RuntimeError as error:
        raise EngineError(
            f"llama.cpp cannot load {config.name}",
            "Check that the file is a GGUF model and that memory suffices for it and for parallel x context tokens",
            detail=str(error),
        ) from error
    finally:
        weights.close()


def _params(xllamacpp: Any, config: LlamaConfig, path: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {config.name}
    params.n_gpu_layers = 0
    params.n_parallel = config.parallel
    params.n_ctx = config.context_tokens * config.parallel
    params.cont_batching = True
    params.n_batch = params.n_ubatch = _PREFILL_BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # No store of prompts beside the slots, and no sharing between slots (G15).
    params.kv_unified = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 0
    params.slot_prompt_similarity = 0.0
    # llama.cpp always opens a loopback port. Nothing here uses it: a key that nobody knows, and nothing to look at.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = 1
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    # Silent: its log lines go straight to the host, past every filter of ours.
    params.verbosity = 0
    params.warmup = False
    return params
