"""The embedded engine with the real model: answers, counts, aborts, concurrency, isolation between tenants."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from worker.engine.api import Delta, Done, EngineError, RequestError
from worker.engine.llama import LlamaConfig, LlamaEngine
from worker.engine.request import bounds, validate
from worker.engine.weights import SMOLLM2_SHA256

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(LlamaConfig(parallel=8, context_tokens=1024))
    await engine.start()
    yield engine
    await engine.close()


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 12, "temperature": 0, **more}


async def answer(engine: LlamaEngine, request: dict[str, Any], salt: str = "") -> tuple[list[Delta], Done]:
    deltas: list[Delta] = []
    async with aclosing(engine.chat(request, cache_salt=salt)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Done):
                return deltas, piece
            deltas.append(piece)
    raise AssertionError("no Done")


async def all_slots_free(engine: LlamaEngine, within_s: float) -> float:
    started = time.monotonic()
    while engine.free_slots < 8:
        assert time.monotonic() - started < within_s, "a slot is still held"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_model_info_is_that_of_the_pinned_weights(engine: LlamaEngine) -> None:
    info = await engine.start()
    assert (info.name, info.model_hash, info.measured) == ("SmolLM2-135M-Instruct", SMOLLM2_SHA256, True)


async def test_streamed_and_whole_answers_agree_in_text_and_usage(engine: LlamaEngine) -> None:
    request = ask("Write one sentence about the sea.")
    streamed, done = await answer(engine, request | {"stream": True})
    whole, whole_done = await answer(engine, request)
    text = "".join(delta.text for delta in streamed)
    assert len(text) > 10 and len(streamed) > 10
    assert [delta.text for delta in whole] == [text]
    assert whole[0].raw["choices"][0]["message"]["content"] == text
    assert done == whole_done and done.usage.completion == 12 and done.stop_reason == "length"
    assert whole[0].raw["usage"]["completion_tokens"] == 12


async def test_running_count_ends_at_the_usage_and_stays_within_bounds(engine: LlamaEngine) -> None:
    request = validate(ask("Count to five 🐙.", stream=True))
    streamed, done = await answer(engine, request)
    counts = [delta.completion_tokens_so_far for delta in streamed]
    assert counts == sorted(counts) and counts[-1] == done.usage.completion
    assert streamed[-1].so_far.prompt == done.usage.prompt
    max_prompt, max_completion = bounds(request, await engine.start())
    assert done.usage.prompt <= max_prompt and done.usage.completion <= max_completion


async def test_completions_stop_strings_and_seeds(engine: LlamaEngine) -> None:
    base = {"prompt": "One, two, three,", "max_tokens": 8, "temperature": 0.9}
    first, _ = await answer(engine, base | {"seed": 7})
    again, _ = await answer(engine, base | {"seed": 7})
    assert first[0].text == again[0].text and first[0].raw["object"] == "text_completion"
    full, _ = await answer(engine, ask("Write one sentence about the sea."))
    stop = full[0].text.split()[2]
    cut, done = await answer(engine, ask("Write one sentence about the sea.", stop=[stop]))
    assert stop not in cut[0].text and done.stop_reason == "stop"


async def test_answers_never_name_the_host_or_the_load(engine: LlamaEngine) -> None:
    streamed, _ = await answer(engine, ask("Hi", stream=True))
    for delta in streamed:
        assert not {"timings", "system_fingerprint", "prompt_progress"} & set(delta.raw)
        assert delta.raw["model"] == "SmolLM2-135M-Instruct"


async def test_closing_the_stream_aborts_generation_and_frees_the_slot(engine: LlamaEngine) -> None:
    async with aclosing(engine.chat(ask("Tell a long story.", max_tokens=900, stream=True))) as pieces:
        seen = 0
        async for _ in pieces:
            seen += 1
            if seen == 3:
                break
    # 900 tokens take far longer than this on any machine of ours.
    assert await all_slots_free(engine, 3) < 3


async def test_abort_during_prefill_does_not_wait_for_the_first_token(engine: LlamaEngine) -> None:
    long = ask("red green blue " * 280, max_tokens=1, stream=True)
    task = asyncio.create_task(answer(engine, long))
    await asyncio.sleep(0.3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await all_slots_free(engine, 10)


async def test_more_requests_than_slots_are_all_answered(engine: LlamaEngine) -> None:
    asked = [ask(f"Say the number {index}.", stream=index % 2 == 0, max_tokens=6) for index in range(12)]
    alone, _ = await answer(engine, asked[0])
    answers = await asyncio.gather(*(answer(engine, request) for request in asked))
    assert all(1 <= done.usage.completion <= 6 for _, done in answers)
    assert "".join(d.text for d in answers[0][0]) == "".join(d.text for d in alone)
    await all_slots_free(engine, 1)


async def test_g15_cached_tokens_are_never_reported_across_salts(engine: LlamaEngine) -> None:
    request = ask("The quick brown fox jumps over the lazy dog, says tenant A.", max_tokens=2)
    _, first = await answer(engine, request, "tenant-a")
    _, again = await answer(engine, request, "tenant-a")
    assert first.usage.cached == 0
    # Reuse does work where it may, else the rest of this test would hold for nothing.
    assert again.usage.cached > 20
    for salt in ["tenant-b", "", *(f"tenant-{index}" for index in range(9))]:
        _, other = await answer(engine, request, salt)
        assert other.usage.cached == 0, salt


async def test_g15_a_refused_request_does_not_inherit_the_slot(engine: LlamaEngine) -> None:
    request = ask("Only tenant A ever wrote this line about the lighthouse.", max_tokens=2)
    for index in range(8):
        await answer(engine, request, f"owner-{index}")
    too_long = ask("word " * 3000)
    for _ in range(8):
        with pytest.raises(RequestError):
            await answer(engine, too_long, "thief")
    # The thief's refused prompt never reached a cache, so nothing there is his.
    _, stolen = await answer(engine, request, "thief")
    assert stolen.usage.cached == 0


async def test_g18_bad_requests_are_named_and_leave_the_engine_working(
    engine: LlamaEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match="the context holds 1024"):
        await answer(engine, ask("MARKER word " * 3000))
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "MARKER"}}}
    for bad in (ask("x", response_format=schema), ask("x", tools=[{"a": 1}]), ask("x", grammar="MARKER ::= (")):
        with pytest.raises(RequestError):
            await answer(engine, bad)
    for turns in (["user", "assistant", "assistant"], ["user", "assistant"]):
        messages: list[dict[str, Any]] = [{"role": role, "content": "MARKER"} for role in turns]
        messages[-1]["tool_calls"] = [{"MARKER": 1}]
        with pytest.raises(RequestError, match="cannot use the request") as caught:
            await answer(engine, {"messages": messages})
        assert "MARKER" not in str(caught.value)
    _, done = await answer(engine, ask("Hi", max_tokens=2))
    assert done.usage.completion >= 1
    written = capfd.readouterr()
    assert "MARKER" not in written.out + written.err


async def test_g18_closed_engine_says_so_and_ends_running_requests() -> None:
    engine = LlamaEngine(LlamaConfig(parallel=1, context_tokens=512))
    with pytest.raises(EngineError, match="not running"):
        await answer(engine, ask("x"))
    await engine.start()
    story = ask("Tell a long story.", max_tokens=400, stream=True)
    running = [asyncio.create_task(answer(engine, story)) for _ in range(2)]
    await asyncio.sleep(0.5)
    await engine.close()
    # One was generating, the other waited for the only slot.
    for task in running:
        with pytest.raises(EngineError, match="closed"):
            await asyncio.wait_for(task, 5)
    await engine.close()
