"""Loads `queries.sql` and the migrations: SQL stays a text that people and tools can read on its own."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$")
_MIGRATION = re.compile(r"^(\d{4})_\w+\.sql$")


@cache
def queries() -> dict[str, str]:
    """Name -> statement. Raises ValueError on a name that appears twice."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in (resources.files("relayer.store") / "queries.sql").read_text().splitlines():
        match = _NAME.match(line)
        if match:
            if match[1] in found:
                raise ValueError(f"queries.sql names {match[1]} twice")
            current = found[match[1]] = []
        elif current is not None:
            current.append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


@cache
def schema() -> str:
    return (resources.files("relayer.store") / "schema.sql").read_text()


@cache
def migrations() -> tuple[tuple[int, str], ...]:
    """(version, script) in order. Raises ValueError on a gap or a foreign file."""
    found: dict[int, str] = {}
    for entry in (resources.files("relayer.store") / "migrations").iterdir():
        match = _MIGRATION.match(entry.name)
        if match:
            found[int(match[1])] = entry.read_text()
        elif entry.name.endswith(".sql"):
            raise ValueError(f"migration {entry.name} is not named NNNN_what.sql")
    if sorted(found) != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations {sorted(found)} have a gap")
    return tuple(sorted(found.items()))
