"""The opened answer: one JSON object per line, each an OpenAI object, or at the end an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.errors import ClientError, showable
from client.events import Text


class MalformedAnswer(ClientError):
    """What the enclave sealed is no answer of the agreed form."""

    code = "malformed-answer"
    promised = True


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """The engine's refusal or failure, in its own words: for the caller, never for a log."""

    message: str
    invalid: bool


class Lines:
    """Bytes in, objects out. `error` is set where the answer ends in one.

    A malformed answer is only told by `close`: its receipt still comes, and must be read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken: MalformedAnswer | None = None
        self.error: EngineSaid | None = None

    def feed(self, data: bytes) -> list[Text]:
        if self._broken is not None:
            return []
        self._buffer += data
        if b"\n" not in data:
            return []
        *whole, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        found: list[Text] = []
        try:
            for line in whole:
                if (text := self._line(line)) is not None:
                    found.append(text)
        except MalformedAnswer as error:
            self._broken = error
        return found

    def close(self) -> None:
        """The answer ended. Raises MalformedAnswer."""
        if self._broken is not None:
            raise self._broken
        if self._buffer:
            raise MalformedAnswer("the answer ends inside a line", "ask again, or use another node")

    def _line(self, line: bytes) -> Text | None:
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MalformedAnswer("a line of the answer is not JSON", "ask again, or use another node") from error
        if not isinstance(raw, dict):
            raise MalformedAnswer("a line of the answer is no JSON object", "ask again, or use another node")
        if "error" in raw and "choices" not in raw:
            said = raw["error"] if isinstance(raw["error"], dict) else {}
            invalid = said.get("type") == "invalid_request_error"
            self.error = EngineSaid(showable(said.get("message", "the engine failed")), invalid)
            return None
        return Text(text_of(raw), raw)


def text_of(raw: Mapping[str, Any]) -> str:
    """What an OpenAI chunk or response adds to the visible answer."""
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    choice = choices[0]
    for part in (choice.get("delta"), choice.get("message"), choice):
        if isinstance(part, dict):
            for name in ("content", "text"):
                if isinstance(part.get(name), str):
                    return str(part[name])
    return ""
