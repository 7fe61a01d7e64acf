"""One admitted request from the engine to its last frame: meter, seal, sign, and wait for the disk.

The sealed answer is a sequence of JSON objects, one per line. With `stream` each is an OpenAI chunk, without it there
is one whole OpenAI response; where the request is refused or breaks, the last line is `{"error": {...}}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from protocol import commitments
from protocol.account import MAX_REQUEST_SECONDS
from protocol.errors import Code, WireError
from protocol.opening import Endpoint, Opening
from protocol.pricing import Stop, Usage, charge, completion_budget
from protocol.stream import ResponseWriter
from worker.enclave.wire import Outbox
from worker.engine import api as engine_api
from worker.engine.request import bounds, is_chat, validate
from wrappers.receipts import InnerReceipt, Terms

log = logging.getLogger(__name__)

# A whole answer with its logprobs may have megabytes: in one message it would break the link to the agent, and sent at
# once it would overflow what a relayer holds for one client.
PIECE_BYTES = 64 << 10
PIECE_SECONDS = 0.05


class Refused(Exception):
    """The request will not be run, and nothing was billed."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.cause)
        self.error = error


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, and what of it is billed."""

    usage: Usage
    stop: Stop


@dataclass(frozen=True, slots=True)
class Task:
    """What the engine is asked to do. `invalid` is set instead of a body where the client's body is refused."""

    body: Mapping[str, Any]
    invalid: engine_api.RequestError | None = None


def plan(opening: Opening, model: engine_api.ModelInfo) -> Task:
    """The engine's request with its completion limit lowered to what the client's maximum pays for.

    Raises Refused(MAXIMUM_TOO_LOW) when the maximum may not even pay for the prompt: an amount is usage x terms and is
    never cut, so this must be known before the engine works.
    """
    try:
        body = validate(json.loads(opening.body))
        if is_chat(body) != (opening.endpoint is Endpoint.CHAT_COMPLETIONS):
            raise engine_api.RequestError("The body is not for this endpoint", "Send `messages` to chat completions")
    except (ValueError, RecursionError) as error:  # a RequestError is a ValueError too
        if isinstance(error, engine_api.RequestError):
            return Task({}, error)
        return Task({}, engine_api.RequestError("The body is not JSON", "Send one UTF-8 JSON object"))
    prompt, completion = bounds(body, model)
    budget = completion_budget(opening.terms, opening.maximum_nano, prompt)
    if budget < 1:
        detail = f"a prompt of up to {prompt} tokens leaves nothing for an answer"
        raise Refused(WireError.of(Code.MAXIMUM_TOO_LOW, detail))
    limit = min(completion, budget)
    # validate() lets the two names stand for one number; the engine must see ours under whichever is there.
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in body] or ["max_tokens"]
    return Task({**body, **dict.fromkeys(names, limit)})


def billable(terms: Terms, maximum_nano: int, usage: Usage, stop: Stop) -> Outcome:
    """The outcome, brought within the request's maximum: an engine that overran its limits is the operator's loss."""
    if charge(terms, usage, stop) <= maximum_nano:
        return Outcome(usage, stop)
    budget = completion_budget(terms, maximum_nano, usage.prompt_tokens)
    if budget < 1:
        return Outcome(Usage(), Stop.FAILED)
    completion = min(usage.completion_tokens, budget)
    reasoning = min(usage.reasoning_tokens, completion)
    return Outcome(Usage(usage.prompt_tokens, usage.cached_tokens, completion, reasoning), stop)


class Answering:
    """Runs one request. `run` seals the answer into the outbox and says how it ended; `cancel` ends it early."""

    def __init__(self, opening: Opening, task: Task, writer: ResponseWriter, outbox: Outbox) -> None:
        self._opening = opening
        self._task = task
        self._writer = writer
        self._outbox = outbox
        self._tick = opening.shape.tick_ms / 1000
        self._buffer = bytearray()
        self._runner: asyncio.Task[Any] | None = None
        self._waiting = False
        self._cancelled = False

    def cancel(self) -> None:
        """Stop generating. Only a wait for the engine is interrupted: a chunk that was sealed must also leave."""
        self._cancelled = True
        if self._waiting and self._runner is not None:
            self._runner.cancel()

    def _too_late(self) -> None:
        late = engine_api.EngineError("The request took too long", "Ask for fewer tokens")
        self._put(_error_line("engine_error", Code.TIMEOUT, late))
        self.cancel()

    async def run(self, engine: engine_api.Engine, cache_salt: str) -> Outcome:
        """Never raises for what engine or client do wrong: every admitted request must end with a receipt."""
        if self._task.invalid is not None:
            error = self._task.invalid
            self._put(_error_line("invalid_request_error", Code.BAD_REQUEST, error))
            outcome = Outcome(Usage(), Stop.INVALID)
        else:
            stream = engine.chat(self._task.body, cache_salt=cache_salt)
            outcome = await self._generate(stream)
        await self._flush()
        return billable(self._opening.terms, self._opening.maximum_nano, outcome.usage, outcome.stop)

    async def _generate(self, stream: AsyncGenerator[engine_api.Delta | engine_api.Done, None]) -> Outcome:
        sofar = Usage()
        self._runner = asyncio.current_task()
        # Clients count on it: a promise that is older never runs, so they stop counting it.
        deadline = asyncio.get_running_loop().call_later(MAX_REQUEST_SECONDS, self._too_late)
        ticker = asyncio.create_task(self._ticks()) if self._tick else None
        try:
            async with aclosing(stream):
                while not self._cancelled:
                    piece = await self._next(stream)
                    if isinstance(piece, engine_api.Done):
                        stop = Stop.LENGTH if piece.stop_reason == "length" else Stop.END
                        return Outcome(_usage(piece.usage), stop)
                    sofar = _usage(piece.so_far)
                    self._put(_line(piece.raw))
                    if not self._tick:
                        await self._flush()
                return Outcome(sofar, Stop.CANCELLED)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cancelled or task is None:
                raise
            task.uncancel()
            return Outcome(sofar, Stop.CANCELLED)
        except engine_api.RequestError as error:
            self._put(_error_line("invalid_request_error", Code.BAD_REQUEST, error))
            return Outcome(sofar, Stop.INVALID)
        except engine_api.EngineError as error:
            log.warning("the engine failed: %s", error)
            self._put(_error_line("engine_error", Code.ENGINE_FAILED, error))
            return Outcome(sofar, Stop.FAILED)
        except Exception as error:
            # A fault of ours must not leave a request without its receipt. Its text may quote the prompt: only the
            # type is logged.
            log.error("answering failed with %s", type(error).__name__)
            failure = engine_api.EngineError("The worker failed", "Repeat with a new request id")
            self._put(_error_line("engine_error", Code.ENGINE_FAILED, failure))
            return Outcome(sofar, Stop.FAILED)
        finally:
            deadline.cancel()
            if ticker is not None:
                ticker.cancel()
                await asyncio.gather(ticker, return_exceptions=True)

    async def _next(self, stream: AsyncGenerator[engine_api.Delta | engine_api.Done, None]) -> Any:
        self._waiting = True
        try:
            return await anext(stream)
        except StopAsyncIteration as error:
            raise engine_api.EngineError("The engine's answer has no end", "Repeat with a new request id") from error
        finally:
            self._waiting = False

    async def _ticks(self) -> None:
        # Chunks leave on the beat of a clock that started with the answer, not when tokens come: how long each token
        # took is what gives a streamed answer away.
        loop = asyncio.get_running_loop()
        start, beat = loop.time(), 0
        while True:
            beat = max(beat + 1, int((loop.time() - start) / self._tick))
            await asyncio.sleep(start + beat * self._tick - loop.time())
            await self._flush()

    def _put(self, line: bytes) -> None:
        self._buffer += line

    async def _flush(self) -> None:
        while self._buffer:
            data = bytes(self._buffer[:PIECE_BYTES])
            del self._buffer[:PIECE_BYTES]
            await self._outbox.frames(self._writer.data(data))
            if self._buffer:
                await asyncio.sleep(PIECE_SECONDS)


def inner_receipt(
    opening: Opening, request_id: bytes, model: engine_api.ModelInfo, outcome: Outcome, response: bytes
) -> InnerReceipt:
    """The sealed half of the receipt; `response` is the digest over the answer."""
    usage = outcome.usage
    return InnerReceipt(
        salt=commitments.inner_salt(opening.response_secret),
        model=model.model_hash,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        stop=outcome.stop,
        request=commitments.request_commitment(opening.response_secret, request_id, opening.body),
        response=response,
        logprobs=commitments.NOTHING,
    )


def _usage(usage: engine_api.Usage) -> Usage:
    return Usage(usage.prompt, usage.cached, usage.completion, usage.reasoning)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _error_line(kind: str, code: Code, error: engine_api.EngineError | engine_api.RequestError) -> bytes:
    # Sealed for the client alone, so the engine's own words may be in it.
    message = f"{error.cause}. {error.cure}" + (f" ({error.detail[:1000]})" if error.detail else "")
    return _line({"error": {"message": message, "type": kind, "code": code.value}})
