"""From an engine's chunks to metered OpenAI objects: pure, shared by every engine.

Chunks are rebuilt from a list of known fields. Whatever else an engine adds (timings, load figures, model paths) would
tell one tenant about the machine or about other tenants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.engine.api import Delta, Done, EngineError, ModelInfo, Usage
from worker.engine.request import is_chat

_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
_DELTA_FIELDS = ("role", *_TEXT_FIELDS, "tool_calls")


def _malformed(what: str) -> EngineError:
    return EngineError(f"The engine sent {what}", "Use an engine that speaks the OpenAI streaming format")


def _count(source: Mapping[str, Any], key: str) -> int:
    value = source.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _malformed(f"a token count `{key}` that is not a natural number")
    return value


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's usage object; reasoning is also read where SGLang puts it. Raises `EngineError`."""
    prompt_parts = usage.get("prompt_tokens_details") or {}
    completion_parts = usage.get("completion_tokens_details") or {}
    if not isinstance(prompt_parts, Mapping) or not isinstance(completion_parts, Mapping):
        raise _malformed("usage details that are no objects")
    reasoning = _count(completion_parts, "reasoning_tokens") or _count(usage, "reasoning_tokens")
    cached = _count(prompt_parts, "cached_tokens")
    try:
        return Usage(_count(usage, "prompt_tokens"), cached, _count(usage, "completion_tokens"), reasoning)
    except ValueError as error:
        raise _malformed("usage whose parts exceed the whole") from error


def write_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _merge_logprobs(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, values in more.items():
        if isinstance(values, list):
            into.setdefault(key, []).extend(values)


def _merge_tool_calls(into: list[dict[str, Any]], more: list[Any]) -> None:
    for call in more:
        if not isinstance(call, dict) or not 0 <= _count(call, "index") <= len(into):
            raise _malformed("tool calls out of order")
        index = _count(call, "index")
        if index == len(into):
            into.append({"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
        function = call.get("function") or {}
        for key in ("name", "arguments"):
            into[index]["function"][key] += function.get(key) or ""


class Meter:
    """One request's stream. `feed` each chunk of the engine, then `finish` when the engine said it is complete."""

    def __init__(self, request: Mapping[str, Any], model: ModelInfo) -> None:
        self._chat = is_chat(request)
        self._streams = bool(request.get("stream"))
        self._shows_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._model = model.name
        self._head: dict[str, Any] = {}
        self._role_sent = False
        self._so_far = Usage()
        self._final: Usage | None = None
        self._finish_reason: str | None = None
        self._texts: dict[str, str] = {}
        self._tool_calls: list[dict[str, Any]] = []
        self._logprobs: dict[str, Any] = {}

    @property
    def so_far(self) -> Usage:
        return self._so_far

    def feed(self, chunk: Mapping[str, Any]) -> Delta | None:
        """One engine chunk to what the client gets of it, if anything. Raises `EngineError` on a malformed chunk."""
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise _malformed("a chunk without choices")
        if not self._head:
            self._head = {"id": str(chunk.get("id", "")), "created": _count(chunk, "created"), "model": self._model}
        choice = choices[0] if choices else None
        clean = self._clean(choice) if choice is not None else None
        self._meter(chunk, counts=clean is not None and self._text_of(clean) != "")
        if clean is None:
            return None
        self._collect(clean)
        if not self._streams or self._is_noise(clean):
            return None
        return Delta(self._visible(clean), self._object("chunk", choices=[clean]), self._so_far)

    def finish(self) -> Iterator[Delta | Done]:
        """What is left to send, `Done` last. Raises `EngineError` where the engine did not count or did not end."""
        if self._finish_reason is None:
            raise EngineError("The engine ended the answer without a finish reason", "Send the request again")
        if self._final is None:
            raise EngineError(
                "The engine sent no usage, so the answer cannot be metered",
                "Use an engine that honours stream_options.include_usage",
            )
        usage = write_usage(self._final)
        if not self._streams:
            body = self._object("", choices=[self._whole()]) | {"usage": usage}
            yield Delta(self._texts.get("content", ""), body, self._final)
        elif self._shows_usage:
            yield Delta("", self._object("chunk", choices=[]) | {"usage": usage}, self._final)
        yield Done(self._final, self._finish_reason)

    def _clean(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        clean: dict[str, Any] = {"index": 0, "finish_reason": choice.get("finish_reason")}
        if choice.get("logprobs") is not None:
            clean["logprobs"] = choice["logprobs"]
        if self._chat:
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                raise _malformed("a chat chunk without delta")
            clean["delta"] = {key: delta[key] for key in _DELTA_FIELDS if key in delta}
        else:
            clean["text"] = choice.get("text") or ""
        texts = [clean["delta"].get(key) for key in _TEXT_FIELDS] if self._chat else [clean["text"]]
        if not all(text is None or isinstance(text, str) for text in [*texts, clean["finish_reason"]]):
            raise _malformed("a text or finish reason that is not a string")
        return clean

    def _text_of(self, clean: Mapping[str, Any]) -> str:
        if not self._chat:
            return str(clean["text"])
        delta = clean["delta"]
        return "".join(delta.get(key) or "" for key in _TEXT_FIELDS) + ("*" if delta.get("tool_calls") else "")

    def _visible(self, clean: Mapping[str, Any]) -> str:
        return str(clean["delta"].get("content") or "") if self._chat else str(clean["text"])

    def _is_noise(self, clean: Mapping[str, Any]) -> bool:
        """True for llama.cpp's prefill reports, which repeat the opening chunk, and for empty chunks."""
        if self._text_of(clean) or clean["finish_reason"]:
            return False
        first_role = self._chat and "role" in clean["delta"] and not self._role_sent
        self._role_sent = self._role_sent or first_role
        return not first_role

    def _meter(self, chunk: Mapping[str, Any], *, counts: bool) -> None:
        usage, timings = chunk.get("usage"), chunk.get("timings")
        if isinstance(usage, dict):
            seen = self._final = read_usage(usage)
        elif isinstance(timings, dict):
            cached = _count(timings, "cache_n")
            seen = Usage(cached + _count(timings, "prompt_n"), cached, _count(timings, "predicted_n"))
        else:
            # No running count from this engine: one piece is at least one token, so this errs in the client's favour.
            seen = Usage(completion=self._so_far.completion + counts)
        old = self._so_far
        self._so_far = Usage(
            max(old.prompt, seen.prompt),
            max(old.cached, seen.cached),
            max(old.completion, seen.completion),
            max(old.reasoning, seen.reasoning),
        )

    def _collect(self, clean: Mapping[str, Any]) -> None:
        self._finish_reason = clean["finish_reason"] or self._finish_reason
        if self._streams:
            return
        if isinstance(clean.get("logprobs"), dict):
            _merge_logprobs(self._logprobs, clean["logprobs"])
        if self._chat:
            for key in _TEXT_FIELDS:
                if clean["delta"].get(key):
                    self._texts[key] = self._texts.get(key, "") + clean["delta"][key]
            _merge_tool_calls(self._tool_calls, clean["delta"].get("tool_calls") or [])
        else:
            self._texts["content"] = self._texts.get("content", "") + clean["text"]

    def _whole(self) -> dict[str, Any]:
        whole: dict[str, Any] = {"index": 0, "finish_reason": self._finish_reason, "logprobs": self._logprobs or None}
        if not self._chat:
            return whole | {"text": self._texts.get("content", "")}
        message: dict[str, Any] = {"role": "assistant", "content": self._texts.get("content", "")} | self._texts
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
            message["content"] = self._texts.get("content")
        return whole | {"message": message}

    def _object(self, suffix: str, *, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = f"chat.completion{'.' + suffix if suffix else ''}" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices}
