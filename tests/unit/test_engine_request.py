"""Request bodies: what passes, what is refused and by which name, and what a request can cost at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.api import UNMEASURED, ModelInfo, RequestError
from worker.engine.request import MAX_TEXT_BYTES, bounds, validate

MODEL = ModelInfo("m", UNMEASURED, 2048, measured=False)
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def test_full_bodies_pass_and_validation_is_idempotent() -> None:
    body = CHAT | {
        "model": "m",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 1,
        "seed": 7,
        "stop": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "n": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": -100},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "user": None,
    }
    clean = validate(body)
    assert clean["stop"] == ["x"] and "user" not in clean
    assert validate(clean) == clean
    assert validate({"prompt": "once", "max_tokens": 3}) == {"prompt": "once", "max_tokens": 3}


def test_text_parts_and_tool_turns_pass() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    validate(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "r", "tool_call_id": "1"},
            ]
        }
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cache_salt": "mine"}, "cache_salt"),
        ({"id_slot": 1}, "id_slot"),
        ({"cache_prompt": True}, "cache_prompt"),
        ({"grammar": "root ::= x"}, "grammar"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "extra": 1}]}, "extra"),
        ({"messages": [{"role": "god", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "audio", "text": "u"}]}]}, "messages[0].content"),
        ({"prompt": "both"}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 1 << 64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats"),
        ({"n": 2}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"response_format": {"type": "regex"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"tools": [{"a": float("inf")}]}, "tools"),
    ],
)
def test_g18_bad_bodies_are_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(RequestError) as caught:
        validate(CHAT | change)
    assert named in str(caught.value)
    assert caught.value.cause and caught.value.cure


@pytest.mark.parametrize("body", [None, [], "x", {}, {"model": "m"}, {"prompt": ""}, {"prompt": ["a", "b"]}])
def test_g18_bodies_that_ask_nothing_are_refused(body: object) -> None:
    with pytest.raises(RequestError):
        validate(body)


def test_g18_deep_and_huge_bodies_are_refused() -> None:
    nested: object = "x"
    for _ in range(200):
        nested = {"a": nested}
    with pytest.raises(RequestError, match="nests deeper"):
        validate(CHAT | {"tools": [{"a": nested}]})
    with pytest.raises(RequestError, match="bytes of text"):
        validate({"prompt": "x" * (MAX_TEXT_BYTES + 1)})


def test_g19_errors_never_quote_the_prompt() -> None:
    secret = "MY-SECRET-PROMPT"
    for body in (
        {"messages": secret},
        {"messages": [{"role": secret, "content": "x"}]},
        {"messages": [{"role": "user", "content": {"t": secret}}]},
        {"prompt": "x", "stop": [secret * 100]},
        CHAT | {"tool_choice": {secret: {1}}},
        CHAT | {"temperature": secret},
        CHAT | {"logit_bias": {secret: 1}},
    ):
        with pytest.raises(RequestError) as caught:
            validate(body)
        assert secret not in f"{caught.value} {caught.value.detail}"


def test_bounds_follow_the_request_and_never_exceed_the_context() -> None:
    assert bounds(validate(CHAT | {"max_tokens": 7}), MODEL)[1] == 7
    assert bounds(validate(CHAT | {"max_completion_tokens": 8}), MODEL)[1] == 8
    assert bounds(validate(CHAT), MODEL)[1] == 2047
    assert bounds(validate({"prompt": "x" * 9999, "max_tokens": 9999}), MODEL) == (2047, 2047)
    small = bounds(validate({"prompt": "hello"}), MODEL)[0]
    assert 5 < small < 2047
    assert bounds(validate({"prompt": "hello" * 20}), MODEL)[0] == small + 95


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["messages", "prompt", "max_tokens", "stop", "stream", "stream_options", "tools", "response_format", "logit_bias"]
)


@given(st.dictionaries(KEYS, JSON, max_size=4) | JSON)
def test_g18_any_json_is_answered_with_a_body_or_a_request_error(body: object) -> None:
    try:
        clean = validate(body)
    except RequestError:
        return
    assert bounds(clean, MODEL) <= (2047, 2047)
