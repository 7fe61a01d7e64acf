"""JSON from outside, without its soft spots: no repeated keys, no NaN, no surprises of nesting."""

from __future__ import annotations

import json


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def parse(data: str | bytes) -> object:
    """Raises ValueError on anything but one strict JSON text in UTF-8."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        parsed: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return parsed
