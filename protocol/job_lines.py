"""Lines of a batch job in OpenAI's form: one JSON object per line, in and out.

In: `{"custom_id", "method": "POST", "url", "body"}`. Out: `{"id", "custom_id", "response", "error"}`, one line for
every line that came in, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocol import strict_json
from protocol.errors import Code, Malformed, Peer
from protocol.opening import MAX_BODY_BYTES, Endpoint

MAX_LINES = 10_000
MAX_ID_CHARACTERS = 256
_URLS = {"/v1/chat/completions": Endpoint.CHAT_COMPLETIONS, "/v1/completions": Endpoint.COMPLETIONS}
_KEYS = {"custom_id", "method", "url", "body"}


@dataclass(frozen=True, slots=True)
class Line:
    custom_id: str
    endpoint: Endpoint
    body: Mapping[str, Any] = field(repr=False)

    def to_json(self) -> bytes:
        url = next(url for url, endpoint in _URLS.items() if endpoint is self.endpoint)
        return _line({"custom_id": self.custom_id, "method": "POST", "url": url, "body": dict(self.body)})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one line: an OpenAI response object, or the error that stands in its place."""

    custom_id: str
    response: Mapping[str, Any] | None = field(repr=False)
    error: Mapping[str, Any] | None = None


def read_lines(data: bytes) -> tuple[Line, ...]:
    """Raises Malformed (blaming the client), naming the line, for anything that is no batch of at most MAX_LINES."""
    # Counted before it is cut: a list of sixteen million empty lines takes eight times the memory that they do.
    rows = [row for row in data.split(b"\n") if row.strip()] if data.count(b"\n") <= 2 * MAX_LINES else []
    if not 1 <= len(rows) <= MAX_LINES:
        shown = len(rows) or data.count(b"\n")
        raise Malformed(f"a job has 1 to {MAX_LINES} lines, not {shown}", Peer.CLIENT)
    lines = tuple(_read(row, number) for number, row in enumerate(rows, 1))
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if line.custom_id in seen:
            raise _bad(number, "repeats the custom_id of a line before it")
        seen.add(line.custom_id)
    return lines


def _bad(number: int, what: str) -> Malformed:
    return Malformed(f"line {number} {what}", Peer.CLIENT)


def _read(row: bytes, number: int) -> Line:
    if len(row) > MAX_BODY_BYTES:
        raise _bad(number, f"has over {MAX_BODY_BYTES} bytes")
    try:
        raw = strict_json.parse(row)
    except ValueError:
        raise _bad(number, "is not one JSON object in UTF-8") from None  # the error would quote the prompt
    if not isinstance(raw, dict) or set(raw) != _KEYS:
        raise _bad(number, "needs exactly custom_id, method, url and body")
    custom_id, url = raw["custom_id"], raw["url"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_ID_CHARACTERS:
        raise _bad(number, f"has a custom_id that is no text of 1 to {MAX_ID_CHARACTERS} characters")
    if raw["method"] != "POST" or not isinstance(url, str) or url not in _URLS:
        raise _bad(number, f"is no POST to {' or '.join(_URLS)}")
    if not isinstance(raw["body"], dict):
        raise _bad(number, "has a body that is no JSON object")
    return Line(custom_id, _URLS[url], raw["body"])


def answer_line(number: int, custom_id: str, response: Mapping[str, Any]) -> bytes:
    """`number`: of the line, from 1."""
    name = f"line-{number}"
    full = {"status_code": 200, "request_id": name, "body": dict(response)}
    return _line({"id": name, "custom_id": custom_id, "response": full, "error": None})


def error_line(number: int, custom_id: str, code: Code, message: str) -> bytes:
    error = {"code": code.value, "message": message}
    return _line({"id": f"line-{number}", "custom_id": custom_id, "response": None, "error": error})


def read_answers(data: bytes, asked: Sequence[str]) -> tuple[Answer, ...]:
    """The lines of a result, for the custom ids that were `asked`. Raises Malformed (blaming the node)."""
    if (ends := data.count(b"\n")) > len(asked):
        raise Malformed(f"the result has {ends} lines for {len(asked)}", Peer.NODE)
    rows = [row for row in data.split(b"\n") if row]
    if len(rows) != len(asked):
        raise Malformed(f"the result has {len(rows)} lines for {len(asked)}", Peer.NODE)
    found = []
    for custom_id, row in zip(asked, rows, strict=True):
        try:
            raw = strict_json.parse(row)
        except ValueError:
            raise Malformed("a line of the result is not JSON", Peer.NODE) from None
        if not isinstance(raw, dict) or raw.get("custom_id") != custom_id:
            raise Malformed("the result's lines are not those of the job", Peer.NODE)
        response, error = raw.get("response"), raw.get("error")
        if isinstance(response, dict) == isinstance(error, dict):
            raise Malformed("a line of the result has not exactly one of response and error", Peer.NODE)
        answer = response.get("body") if isinstance(response, dict) else None
        if isinstance(response, dict) and (not isinstance(answer, dict) or error is not None):
            raise Malformed("a line of the result has a response without a body, or an error beside it", Peer.NODE)
        found.append(Answer(custom_id, answer, error))
    return tuple(found)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
