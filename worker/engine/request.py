"""Strict reading of OpenAI request bodies: what is allowed, and the most tokens that a request can use.

Source of the fields: OpenAI API reference, chat.completions and completions. Error texts name keys, never values: a
value may be a part of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from worker.engine.api import ModelInfo, RequestError

MAX_TEXT_BYTES = 2 << 20
MAX_MESSAGES = 4096
MAX_SCHEMA_DEPTH = 32
MAX_STOPS = 16
MAX_STOP_BYTES = 256
# Every tokenizer in use maps at least one byte to a token; role markers and a default system prompt come on top.
TEMPLATE_TOKENS = 256
MESSAGE_TOKENS = 16

_ROLES = ("system", "developer", "user", "assistant", "tool")
_Check = Callable[[str, Any], Any]


def _refuse(cause: str, cure: str) -> RequestError:
    return RequestError(cause, cure)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse(f"`{where}` is not a string", "Send it as a JSON string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refuse(f"`{where}` holds a lone surrogate", "Send valid Unicode text") from error
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse(f"`{where}` is not true or false", "Send a JSON boolean")
    return value


def _whole(low: int, high: int) -> _Check:
    def check(where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(f"`{where}` is not a whole number from {low} to {high}", f"Send `{where}` within that range")
        return value

    return check


def _number(low: float, high: float) -> _Check:
    def check(where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _refuse(f"`{where}` is not a finite number", f"Send `{where}` from {low} to {high}")
        if not low <= value <= high:
            raise _refuse(f"`{where}` is outside {low} to {high}", f"Send `{where}` within that range")
        return value

    return check


def _keys(where: str, value: Any, allowed: Mapping[str, Any] | tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(f"`{where}` is not an object", "Send a JSON object")
    for key in value:
        if key not in allowed:
            name = ascii(key)[:64]
            raise _refuse(f"Unknown key {name} in `{where}`", f"Remove it; allowed are: {', '.join(sorted(allowed))}")
    return value


def _stop(where: str, value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise _refuse(f"`{where}` is not a string or a list of at most {MAX_STOPS}", "Send fewer stop strings")
    for stop in stops:
        if not 0 < len(_text(where, stop).encode()) <= MAX_STOP_BYTES:
            raise _refuse(f"`{where}` has an entry that is empty or too long", f"Keep each to 1-{MAX_STOP_BYTES} bytes")
    return stops


def _json(where: str, value: Any, depth: int = 0) -> Any:
    if depth > MAX_SCHEMA_DEPTH:
        raise _refuse(f"`{where}` nests deeper than {MAX_SCHEMA_DEPTH}", "Flatten it")
    if isinstance(value, dict):
        for key, inner in value.items():
            _text(where, key)
            _json(where, inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _json(where, inner, depth + 1)
    elif isinstance(value, str):
        _text(where, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refuse(f"`{where}` holds a number that is not finite", "Send finite numbers")
    elif value is not None and not isinstance(value, int | float | bool):
        raise _refuse(f"`{where}` is not JSON", "Send plain JSON values")
    return value


def _objects(where: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise _refuse(f"`{where}` is not a list of objects", "Send at least one JSON object in a list")
    _json(where, value)
    return value


def _logit_bias(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > 1024:
        raise _refuse(f"`{where}` is not an object of at most 1024 entries", "Send token ids mapped to biases")
    for token, bias in value.items():
        if not (isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 9):
            raise _refuse(f"`{where}` has a key that is not a token id", "Use decimal token ids as keys")
        _number(-100, 100)(where, bias)
    return value


def _response_format(where: str, value: Any) -> dict[str, Any]:
    kind = _keys(where, value, ("type", "json_schema")).get("type")
    if kind not in ("text", "json_object", "json_schema") or (kind == "json_schema") != ("json_schema" in value):
        raise _refuse(
            f"`{where}.type` is unknown or has no schema", "Use text, json_object, or json_schema with a schema"
        )
    _json(where, value)
    return dict(value)


def _stream_options(where: str, value: Any) -> dict[str, Any]:
    options = _keys(where, value, ("include_usage",))
    return {key: _flag(f"{where}.{key}", inner) for key, inner in options.items()}


def _content(where: str, value: Any) -> Any:
    if not isinstance(value, list):
        return _text(where, value)
    for part in value:
        if _keys(where, part, ("type", "text")).get("type") != "text":
            raise _refuse(f"`{where}` has a part that is not text", "Send text parts only: this node reads no media")
        _text(f"{where}.text", part.get("text"))
    return value


def _messages(where: str, value: Any) -> list[dict[str, Any]]:
    # An empty list is no harmless case: llama.cpp answers it with billed nonsense.
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise _refuse(f"`{where}` is not a list of 1 to {MAX_MESSAGES} messages", "Send at least one message")
    for index, message in enumerate(value):
        here = f"{where}[{index}]"
        _keys(here, message, ("role", "content", "name", "tool_calls", "tool_call_id"))
        if message.get("role") not in _ROLES:
            raise _refuse(f"`{here}.role` is missing or unknown", f"Use one of: {', '.join(_ROLES)}")
        if message.get("content") is not None:
            _content(f"{here}.content", message["content"])
        elif not (message["role"] == "assistant" and "tool_calls" in message):
            raise _refuse(f"`{here}.content` is missing", "Send the text of the message")
        for key in ("name", "tool_call_id"):
            if key in message:
                _text(f"{here}.{key}", message[key])
        if "tool_calls" in message:
            _objects(f"{here}.tool_calls", message["tool_calls"])
    return value


def _prompt(where: str, value: Any) -> str:
    if not _text(where, value):
        raise _refuse(f"`{where}` is empty", "Send one non-empty prompt as a string")
    return str(value)


def _tool_choice(where: str, value: Any) -> Any:
    return value if isinstance(value, str) and value in ("none", "auto", "required") else _json(where, value)


_COMMON: dict[str, _Check] = {
    "model": _text,
    "max_tokens": _whole(1, 1 << 24),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _whole(-1, 1 << 20),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _whole(-(1 << 63), (1 << 63) - 1),
    "stop": _stop,
    "stream": _flag,
    "stream_options": _stream_options,
    "n": _whole(1, 1),
    "logit_bias": _logit_bias,
    "user": _text,
}
_CHAT: dict[str, _Check] = _COMMON | {
    "messages": _messages,
    "max_completion_tokens": _whole(1, 1 << 24),
    "response_format": _response_format,
    "logprobs": _flag,
    "top_logprobs": _whole(0, 20),
    "tools": _objects,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _flag,
    "reasoning_effort": _text,
}
_COMPLETION: dict[str, _Check] = _COMMON | {"prompt": _prompt, "logprobs": _whole(0, 20), "echo": _flag}
# null means "not given" for the optional fields of the OpenAI API, and some clients send it for every one of them.
_REQUIRED = ("messages", "prompt")


def is_chat(request: Mapping[str, Any]) -> bool:
    return "messages" in request


def text_bytes(value: Any) -> int:
    """UTF-8 bytes of all strings in a JSON value, keys included."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, Mapping):
        return sum(text_bytes(key) + text_bytes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(text_bytes(inner) for inner in value)
    return 8


def validate(body: object) -> dict[str, Any]:
    """Check a decoded JSON body and return a clean copy. Raises `RequestError` naming the key. Idempotent."""
    if not isinstance(body, Mapping):
        raise _refuse("The body is not a JSON object", "Send an OpenAI chat.completions or completions body")
    if ("messages" in body) == ("prompt" in body):
        raise _refuse("The body has not exactly one of `messages` and `prompt`", "Send one of the two")
    table = _CHAT if is_chat(body) else _COMPLETION
    given = _keys("request", dict(body), table)
    clean: dict[str, Any] = {}
    for key, value in given.items():
        if value is not None or key in _REQUIRED:
            clean[key] = table[key](key, value)
    if text_bytes(clean) > MAX_TEXT_BYTES:
        raise _refuse(f"The request holds more than {MAX_TEXT_BYTES} bytes of text", "Send a shorter one")
    if "stream_options" in clean and not clean.get("stream"):
        raise _refuse("`stream_options` is given without `stream`", "Set `stream` to true or drop the options")
    if "top_logprobs" in clean and not clean.get("logprobs"):
        raise _refuse("`top_logprobs` is given without `logprobs`", "Set `logprobs` to true or drop it")
    if clean.get("echo"):
        raise _refuse("`echo` is not offered", "Drop it; the client has its prompt")
    limits = {clean[key] for key in ("max_tokens", "max_completion_tokens") if key in clean}
    if len(limits) > 1:
        raise _refuse("`max_tokens` and `max_completion_tokens` differ", "Send one of the two")
    return clean


def max_tokens(request: Mapping[str, Any]) -> int | None:
    """The completion limit that the client set, if any."""
    limit = request.get("max_completion_tokens", request.get("max_tokens"))
    return None if limit is None else int(limit)


def bounds(request: Mapping[str, Any], model: ModelInfo) -> tuple[int, int]:
    """(max_prompt_tokens, max_completion_tokens) of a validated request: never more can be billed for it.

    The prompt's bound is its UTF-8 bytes plus an allowance for the chat template, within the context.
    """
    room = model.context_tokens - 1
    prompt = request["messages"] if is_chat(request) else request["prompt"]
    size = text_bytes(prompt) + text_bytes(request.get("tools", [])) + TEMPLATE_TOKENS
    size += MESSAGE_TOKENS * len(prompt) if is_chat(request) else 0
    limit = max_tokens(request)
    return min(room, size), room if limit is None else min(room, limit)
