"""Mutants that no test can kill, each with its reason: tests/contracts/equivalent_mutants.toml."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.mutants.operators import Mutant


class ExplanationError(Exception):
    """The file of explanations is wrong. Says where and what to do."""


@dataclass(frozen=True, slots=True)
class Explanation:
    file: str
    before: str
    after: str
    reason: str
    nth: int = 1
    """Which of several mutants with the same lines in one file, in order of appearance."""


def read(path: Path) -> tuple[Explanation, ...]:
    rows = tomllib.loads(path.read_text()).get("mutant", [])
    found = tuple(Explanation(**row) for row in rows)
    for row in found:
        if not row.reason.strip():
            raise ExplanationError(f"{path.name}: {row.file}: {row.after!r} has no reason; give one or delete the row")
    return found


def match(mutants: Sequence[Mutant], explanations: Sequence[Explanation]) -> dict[Mutant, Explanation]:
    """Explained mutants. Raises ExplanationError for an explanation of a mutant that is not there (any more)."""
    places: dict[tuple[str, str, str], list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        places[mutant.file, mutant.before, mutant.after].append(mutant)
    result: dict[Mutant, Explanation] = {}
    for row in explanations:
        same = places[row.file, row.before, row.after]
        if not 1 <= row.nth <= len(same):
            raise ExplanationError(
                f"an explanation fits no mutant of {row.file}: {row.before!r} -> {row.after!r}; the code has changed: "
                "delete the explanation, or write it again for the new line if the reason still holds"
            )
        result[same[row.nth - 1]] = row
    return result
