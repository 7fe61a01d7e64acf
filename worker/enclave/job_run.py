"""The lines of one opened job: what they may cost at most, and their answers.

Each line is bounded before anything runs, and what an engine counts beyond a bound is the operator's loss: so the sum
of all lines never costs more than what was compared with the client's maximum.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from protocol.account import MAX_REQUEST_SECONDS
from protocol.errors import Code
from protocol.job_lines import Line, answer_line, error_line
from protocol.jobs import MAX_ANSWERS_BYTES
from protocol.opening import Endpoint
from protocol.pricing import MAX_TOKENS, Stop, Usage, maximum
from worker.engine import api
from worker.engine.request import bounds, is_chat, validate
from wrappers.receipts import Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One line as the engine gets it; `fault` instead where the client's body is refused."""

    custom_id: str
    body: Mapping[str, Any]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fault: str | None = None


def plan(lines: tuple[Line, ...], model: api.ModelInfo) -> tuple[Step, ...]:
    return tuple(_plan(line, model) for line in lines)


def _plan(line: Line, model: api.ModelInfo) -> Step:
    try:
        # Nobody reads along: a stream's chunks would only be put together again.
        body = validate({key: value for key, value in line.body.items() if key not in ("stream", "stream_options")})
        if is_chat(body) != (line.endpoint is Endpoint.CHAT_COMPLETIONS):
            return Step(line.custom_id, {}, fault="The body is not for this url. Send `messages` to chat completions")
    except api.RequestError as error:
        return Step(line.custom_id, {}, fault=str(error))
    prompt, completion = bounds(body, model)
    # The engine's own limit stands in the body, so that what was priced is what runs.
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in body] or ["max_tokens"]
    return Step(line.custom_id, {**body, **dict.fromkeys(names, completion)}, prompt, completion)


def worst_case(terms: Terms, steps: tuple[Step, ...]) -> int | None:
    """The most that these lines can cost, nanoTON; None where they are more tokens than a usage cell can hold."""
    prompt, completion = sum(one.prompt_tokens for one in steps), sum(one.completion_tokens for one in steps)
    return None if max(prompt, completion) > MAX_TOKENS else maximum(terms, prompt, completion)


@dataclass(frozen=True, slots=True)
class Done:
    """What a whole job came to."""

    usage: Usage
    stop: Stop
    answers: bytes


class Runner:
    """Runs jobs' lines, `together` of them at once over all jobs."""

    def __init__(self, engine: api.Engine, together: int) -> None:
        self._engine = engine
        self._places = asyncio.Semaphore(together)

    async def run(self, steps: tuple[Step, ...], cache_salt: str, seconds: float, cut: asyncio.Event) -> Done:
        """Never raises for what engine or client do wrong.

        What has no answer after `seconds`, or when `cut` is set, gets an error.
        """
        lines: list[bytes | None] = [None] * len(steps)
        usages: list[Usage] = [Usage()] * len(steps)

        async def one(number: int, step: Step) -> None:
            async with self._places:
                lines[number], usages[number] = await self._line(number + 1, step, cache_salt)

        tasks = [asyncio.create_task(one(number, step)) for number, step in enumerate(steps)]
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(cut.wait()), asyncio.gather(*tasks)]
        try:
            await asyncio.wait(ends, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*ends, *tasks):
                task.cancel()
            await asyncio.gather(*ends, *tasks, return_exceptions=True)
        return _whole(steps, lines, usages)

    async def _line(self, number: int, step: Step, cache_salt: str) -> tuple[bytes, Usage]:
        if step.fault is not None:
            return error_line(number, step.custom_id, Code.BAD_REQUEST, step.fault), Usage()
        try:
            async with asyncio.timeout(MAX_REQUEST_SECONDS):
                response, usage = await self._ask(step, cache_salt)
        except api.RequestError as error:
            return error_line(number, step.custom_id, Code.BAD_REQUEST, _words(error)), Usage()
        except api.EngineError as error:
            log.warning("the engine failed: %s", error)
            return error_line(number, step.custom_id, Code.ENGINE_FAILED, _words(error)), Usage()
        except TimeoutError:
            return error_line(number, step.custom_id, Code.TIMEOUT, "The line took too long"), Usage()
        except Exception as error:
            # Its text may quote the prompt: only the type is logged.
            log.error("a line failed with %s", type(error).__name__)
            return error_line(number, step.custom_id, Code.ENGINE_FAILED, "The worker failed"), Usage()
        completion = min(usage.completion, step.completion_tokens)
        prompt = min(usage.prompt, step.prompt_tokens)
        billed = Usage(prompt, min(usage.cached, prompt), completion, min(usage.reasoning, completion))
        return answer_line(number, step.custom_id, response), billed

    async def _ask(self, step: Step, cache_salt: str) -> tuple[Mapping[str, Any], api.Usage]:
        response: Mapping[str, Any] | None = None
        async with aclosing(self._engine.chat(step.body, cache_salt=cache_salt)) as pieces:
            async for piece in pieces:
                if isinstance(piece, api.Done):
                    if response is None:
                        break
                    return response, piece.usage
                response = piece.raw
        raise api.EngineError("The engine's answer has no end", "Submit the line again")


def _words(error: api.EngineError | api.RequestError) -> str:
    # Sealed for the client alone, so the engine's own words may be in it.
    return f"{error.cause}. {error.cure}" + (f" ({error.detail[:1000]})" if error.detail else "")


def _whole(steps: tuple[Step, ...], lines: list[bytes | None], usages: list[Usage]) -> Done:
    parts, size, counted = [], 0, []
    for number, (step, line, usage) in enumerate(zip(steps, lines, usages, strict=True)):
        if line is None:
            line = error_line(number + 1, step.custom_id, Code.TIMEOUT, "The job's time was up before this line")
        if size + len(line) > MAX_ANSWERS_BYTES - (len(steps) - number) * _ERROR_ROOM:
            line = error_line(number + 1, step.custom_id, Code.TOO_LARGE, "The answers before filled the result")
            usage = Usage()
        size += len(line)
        parts.append(line)
        counted.append(usage)
    total = Usage(
        sum(one.prompt_tokens for one in counted),
        sum(one.cached_tokens for one in counted),
        sum(one.completion_tokens for one in counted),
        sum(one.reasoning_tokens for one in counted),
    )
    if total.completion_tokens:
        stop = Stop.END
    else:  # opened, but nothing came of it: the minimum where the client was at fault, nothing where the node was
        stop = Stop.INVALID if all(step.fault is not None for step in steps) else Stop.FAILED
    return Done(total, stop, b"".join(parts))


_ERROR_ROOM = 2048
"""More than an error line with the longest custom_id takes."""
