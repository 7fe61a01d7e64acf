"""Metering and rebuilding of engine chunks, and the event stream they come in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.api import UNMEASURED, Delta, Done, EngineError, ModelInfo, Usage
from worker.engine.sse import MAX_EVENT_BYTES, SseReader
from worker.engine.stream import Meter, read_usage

MODEL = ModelInfo("public-name", UNMEASURED, 64, measured=False)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "i", "created": 1, "model": "/host/path.gguf", "choices": choices, **more}


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    details = {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}


def play(request: dict[str, Any], chunks: list[dict[str, Any]]) -> list[Delta | Done]:
    meter = Meter(request, MODEL)
    out: list[Delta | Done] = [delta for each in chunks if (delta := meter.feed(each))]
    return [*out, *meter.finish()]


PLAIN = [
    chunk({"role": "assistant", "content": None}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    chunk(usage=usage(9, 3, 4)),
]


def test_stream_keeps_text_and_hides_what_engines_add() -> None:
    noisy = [each | {"timings": {"predicted_n": 1, "load": "secret"}, "system_fingerprint": "b0"} for each in PLAIN]
    out = play(CHAT | {"stream": True}, noisy)
    assert out[-1] == Done(Usage(9, 4, 3), "stop")
    deltas = [piece for piece in out if isinstance(piece, Delta)]
    assert "".join(delta.text for delta in deltas) == "Hello"
    for delta in deltas:
        assert set(delta.raw) == {"id", "created", "model", "object", "choices"}
        assert delta.raw["model"] == "public-name"


def test_usage_chunk_only_for_those_who_asked() -> None:
    asked = play(CHAT | {"stream": True, "stream_options": {"include_usage": True}}, PLAIN)
    silent = play(CHAT | {"stream": True}, PLAIN)
    assert len(asked) == len(silent) + 1
    assert isinstance(asked[-2], Delta)
    assert asked[-2].raw["usage"]["total_tokens"] == 12 and asked[-2].raw["choices"] == []


def test_whole_response_when_not_streaming() -> None:
    out = play(CHAT, PLAIN)
    assert len(out) == 2 and isinstance(out[0], Delta)
    assert out[0].text == "Hello" and out[0].raw["object"] == "chat.completion"
    assert out[0].raw["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert out[0].raw["usage"]["prompt_tokens_details"]["cached_tokens"] == 4


def test_tool_calls_and_logprobs_are_put_together() -> None:
    part = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}
    pieces = [
        chunk({"role": "assistant", "tool_calls": [part]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, "tool_calls", usage=usage(1, 2)),
    ]
    pieces[0]["choices"][0]["logprobs"] = {"content": [{"token": "a"}]}
    pieces[1]["choices"][0]["logprobs"] = {"content": [{"token": "b"}]}
    whole = play(CHAT, pieces)[0]
    assert isinstance(whole, Delta)
    choice = whole.raw["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (lambda n: {"usage": usage(9, n, 4)}, [Usage(9, 4, 1), Usage(9, 4, 2)]),
        (lambda n: {"timings": {"cache_n": 4, "prompt_n": 5, "predicted_n": n}}, [Usage(9, 4, 1), Usage(9, 4, 2)]),
        (lambda n: {}, [Usage(0, 0, 1), Usage(0, 0, 2)]),
    ],
)
def test_running_count_for_broken_streams(extra: Any, expected: list[Usage]) -> None:
    meter = Meter(CHAT | {"stream": True}, MODEL)
    deltas = [meter.feed(chunk({"content": "x"}, **extra(n))) for n in (1, 2)]
    assert [delta.so_far for delta in deltas if delta] == expected
    assert [delta.completion_tokens_so_far for delta in deltas if delta] == [1, 2]


@pytest.mark.parametrize(
    "chunks",
    [
        PLAIN[:3],
        PLAIN[:4],
        [{}],
        [{"choices": "x"}],
        [chunk({"content": 5})],
        [chunk(usage=usage(-1, 2))],
        [chunk(usage=usage(1, 2, cached=9))],
        [chunk(usage={"prompt_tokens": "1"})],
        [{"choices": [{"text": "x"}]}],
    ],
)
def test_unmetered_or_malformed_streams_fail(chunks: list[dict[str, Any]]) -> None:
    with pytest.raises(EngineError) as caught:
        play(CHAT | {"stream": True}, chunks)
    assert caught.value.cause and caught.value.cure


def test_reasoning_is_read_from_both_dialects() -> None:
    assert read_usage({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}).reasoning == 3
    assert read_usage({"completion_tokens": 5, "reasoning_tokens": 2}).reasoning == 2


@given(st.lists(st.integers(1, 40), max_size=30), st.sampled_from([b"\n", b"\r\n"]))
def test_events_survive_any_cut(cuts: list[int], newline: bytes) -> None:
    sent = [{"n": index, "text": "é\u2028"} for index in range(4)]
    stream = b": ping" + newline * 2
    stream += b"".join(b"data: " + json.dumps(each, ensure_ascii=False).encode() + newline * 2 for each in sent)
    stream += b"data: [DONE]" + newline * 2 + b"data: {" + newline * 2
    reader, got = SseReader(), []
    for cut in [*cuts, len(stream)]:
        piece, stream = stream[:cut], stream[cut:]
        got += reader.feed(piece)
    assert got == sent and reader.ended


@pytest.mark.parametrize(
    "bad", [b"data: {\n\n", b"data: 5\n\n", b"x" * (MAX_EVENT_BYTES + 1), b"data: " + b"[" * 99999 + b"\n\n"]
)
def test_g18_bad_events_are_engine_errors(bad: bytes) -> None:
    with pytest.raises(EngineError):
        SseReader().feed(bad)
