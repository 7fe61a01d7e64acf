"""Server-sent events as OpenAI-compatible servers send them (WHATWG HTML, event stream interpretation; data only)."""

from __future__ import annotations

import json
from typing import Any

from worker.engine.api import EngineError

MAX_EVENT_BYTES = 4 << 20
_CURE = "Use an engine that speaks the OpenAI streaming format"


class SseReader:
    """Bytes in, decoded events out. `ended` is true after `[DONE]`; what follows it is ignored."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held_bytes = 0
        self.ended = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Raises `EngineError` on an event that is not a JSON object or too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._held_bytes + len(self._rest) > MAX_EVENT_BYTES:
            raise EngineError(f"The engine sent an event of more than {MAX_EVENT_BYTES} bytes", _CURE)
        events = []
        for line in lines:
            if self.ended:
                break
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                events.append(event)
        return events

    def _line(self, line: bytes) -> dict[str, Any] | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._held_bytes += len(value)
            return None
        if not self._data:
            return None
        payload, self._data, self._held_bytes = b"\n".join(self._data), [], 0
        if payload == b"[DONE]":
            self.ended = True
            return None
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise EngineError("The engine sent an event that is not JSON", _CURE) from error
        if not isinstance(event, dict):
            raise EngineError("The engine sent an event that is not an object", _CURE)
        return event
