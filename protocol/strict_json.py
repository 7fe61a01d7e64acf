"""JSON from outside, without its soft spots: no repeated keys, no NaN, no surprises of nesting."""

from __future__ import annotations

import json

MAX_DEPTH = 100


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def check_depth(parsed: object, limit: int) -> None:
    """Raises ValueError where containers nest deeper than `limit`.

    How deep a text may nest before Python's own limit strikes hangs on the reader's stack: without a limit of ours one
    program takes what the next cannot read or write again, and one stranger's document in a list spoils the list.
    """
    level, depth = [parsed], 0
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        if depth > limit:
            raise ValueError("nested too deeply")
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]


def parse(data: str | bytes, *, depth: int = MAX_DEPTH) -> object:
    """Raises ValueError on anything but one strict JSON text in UTF-8, nested at most `depth` deep."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        parsed: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_depth(parsed, depth)
    return parsed
