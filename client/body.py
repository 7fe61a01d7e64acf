"""OpenAI request bodies before they are sealed: what is allowed, and the most that one can cost.

A body that the enclave refuses costs the minimum charge, since opening it was work; so the common mistakes are refused
here. The bound of the prompt is the enclave's own (worker.engine.request.bounds): with a lower maximum it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client.errors import BadRequest
from protocol import strict_json
from protocol.opening import MAX_BODY_BYTES, Endpoint
from protocol.pricing import maximum
from wrappers.receipts import Terms

DEFAULT_COMPLETION_TOKENS = 512
TEMPLATE_TOKENS = 256
MESSAGE_TOKENS = 16
MAX_TEXT_BYTES = 2 << 20

_COMMON = frozenset(
    {
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "n",
        "logit_bias",
        "user",
    }
)
_CHAT = _COMMON | {
    "messages",
    "max_completion_tokens",
    "response_format",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
}
_COMPLETION = _COMMON | {"prompt", "logprobs", "echo"}
# Meant for OpenAI's own service and without any effect on the answer: libraries send them unasked.
_IGNORED = frozenset({"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what it asks for. `model` is None where the client left the choice to us."""

    fields: Mapping[str, Any] = field(repr=False)
    endpoint: Endpoint
    model: str | None
    stream: bool

    @classmethod
    def parse(cls, data: bytes, endpoint: Endpoint) -> Body:
        """JSON as it came over HTTP. Raises BadRequest."""
        try:
            raw = strict_json.parse(data)
        except ValueError as error:
            raise BadRequest("the body is not JSON in UTF-8 without repeated keys", "send one JSON object") from error
        if not isinstance(raw, dict):
            raise BadRequest("the body is not a JSON object", "send an OpenAI request body")
        return cls.of(raw, endpoint)

    @classmethod
    def of(cls, raw: Mapping[str, Any], endpoint: Endpoint | None = None) -> Body:
        """`endpoint` None: chat completions where there are `messages`, else completions. Raises BadRequest."""
        chat = "messages" in raw if endpoint is None else endpoint is Endpoint.CHAT_COMPLETIONS
        fields = {key: value for key, value in raw.items() if key not in _IGNORED and value is not None}
        unknown = sorted(set(fields) - (_CHAT if chat else _COMPLETION), key=ascii)
        if unknown:
            raise BadRequest(f"unknown key {ascii(unknown[0])[:64]}", "remove it from the request")
        _check_prompt(fields, chat)
        model = fields.get("model")
        if model is not None and not isinstance(model, str):
            raise BadRequest("`model` is not a string", "send the id of a model of /v1/models")
        if fields.get("n", 1) != 1 or fields.get("echo"):
            raise BadRequest(
                "`n` over 1 and `echo` are not offered", "ask once per answer; the prompt is yours already"
            )
        try:
            size = text_bytes(fields)
        except RecursionError as error:
            raise BadRequest("the body nests too deeply", "flatten it") from error
        if size > MAX_TEXT_BYTES:
            raise BadRequest(f"the request holds over {MAX_TEXT_BYTES} bytes of text", "send a shorter one")
        return cls(
            fields,
            Endpoint.CHAT_COMPLETIONS if chat else Endpoint.COMPLETIONS,
            model or None,
            fields.get("stream") is True,
        )

    def priced(self, model: str, context_tokens: int, terms: Terms) -> tuple[bytes, int]:
        """The bytes to seal for this model, with a limit on the answer in them, and the maximum in nanoTON that covers
        them. Raises BadRequest."""
        limit = self._completion_limit()
        completion = min(context_tokens, DEFAULT_COMPLETION_TOKENS) if limit is None else limit
        fields = {**self.fields, "model": model}
        if limit is None:
            fields["max_tokens"] = completion
        try:
            data = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as error:  # a lone surrogate, NaN, or a cycle
            raise BadRequest("the body cannot be written as JSON in UTF-8", "send valid text and numbers") from error
        if len(data) > MAX_BODY_BYTES:
            raise BadRequest(f"the body has {len(data)} bytes", f"keep it within {MAX_BODY_BYTES}")
        return data, maximum(terms, *self.bounds(context_tokens))

    def bounds(self, context_tokens: int) -> tuple[int, int]:
        """The most prompt and completion tokens of what `priced` seals. Raises BadRequest."""
        limit, room = self._completion_limit(), max(0, context_tokens - 1)
        completion = min(context_tokens, DEFAULT_COMPLETION_TOKENS) if limit is None else limit
        return min(room, self._prompt_bound()), min(room, completion)

    def _completion_limit(self) -> int | None:
        given = [self.fields[name] for name in ("max_completion_tokens", "max_tokens") if name in self.fields]
        for limit in given:
            if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1 << 24:
                raise BadRequest("the limit of completion tokens is no number of 1 or more", "send a whole number")
        if len(set(given)) > 1:
            raise BadRequest("`max_tokens` and `max_completion_tokens` differ", "send one of the two")
        return given[0] if given else None

    def _prompt_bound(self) -> int:
        """Every tokenizer in use maps at least one byte to a token; the chat template comes on top."""
        chat = self.endpoint is Endpoint.CHAT_COMPLETIONS
        prompt = self.fields["messages"] if chat else self.fields["prompt"]
        size = text_bytes(prompt) + text_bytes(self.fields.get("tools", [])) + TEMPLATE_TOKENS
        return size + (MESSAGE_TOKENS * len(prompt) if chat else 0)


def text_bytes(value: object) -> int:
    """UTF-8 bytes of all strings in a JSON value, keys included."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, Mapping):
        return sum(text_bytes(key) + text_bytes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(text_bytes(inner) for inner in value)
    return 8


def _check_prompt(fields: Mapping[str, Any], chat: bool) -> None:
    if chat:
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise BadRequest("`messages` is not a list of at least one message", 'send [{"role": ..., "content": ...}]')
        for message in messages:
            content = message.get("content")
            if not isinstance(message.get("role"), str) or not (
                isinstance(content, str | list) or (content is None and "tool_calls" in message)
            ):
                raise BadRequest("a message lacks `role` or `content`", 'send {"role": ..., "content": ...}')
    elif not isinstance(fields.get("prompt"), str) or not fields["prompt"]:
        raise BadRequest("`prompt` is not one text", "send the prompt as a non-empty string")
