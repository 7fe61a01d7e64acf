"""What became of each mutant, across runs: one JSON object a line. A line holds as long as what it came from."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from scripts.compile import source
from scripts.mutants.func import Source
from scripts.mutants.operators import Mutant
from scripts.mutants.recording import text_key
from scripts.mutants.suite import LAST, TESTS, file_of
from scripts.mutants.trial import Verdict, affected, closure


@dataclass(frozen=True, slots=True)
class Entry:
    place: str
    function: str
    operator: str
    mutant: str
    """Fingerprint of the sources that the mutated contracts are compiled from, the mutation among them."""
    tests: str
    """Fingerprint of the killer's file; of all files that were asked, when it survived."""
    status: str
    by: str
    code: str
    quick: bool
    """The random machines were not asked."""
    seconds: float


@dataclass
class Identities:
    """Fingerprints of mutants: equal exactly when the mutated contracts' sources are, but for comments and layout."""

    sources: Mapping[str, str]
    _parsed: dict[str, Source] = field(default_factory=dict)
    _rest: dict[str, str] = field(default_factory=dict)

    def of(self, mutant: Mutant) -> str:
        name = mutant.file
        if name not in self._rest:
            together = set[str]().union(*(closure(self.sources, source(c)) for c in affected(self.sources, name)))
            self._rest[name] = "".join(self._tokens(each) for each in sorted(together))
        tokens = [token.start for token in self._source(name).tokens]
        change = (name, bisect_left(tokens, mutant.start), bisect_left(tokens, mutant.end), mutant.replacement)
        return sha256(f"{self._rest[name]}{change}".encode()).hexdigest()[:32]

    def _source(self, name: str) -> Source:
        if name not in self._parsed:
            self._parsed[name] = Source(name, self.sources[name])
        return self._parsed[name]

    def _tokens(self, name: str) -> str:
        text = "\n".join(token.text for token in self._source(name).tokens)
        return name + sha256(text.encode()).hexdigest()


@cache
def tests_key(files: frozenset[str]) -> str:
    paths = [path for path in sorted(TESTS.glob("*.py")) if not path.name.startswith("test_") or path.name in files]
    return sha256("".join(path.name + text_key(path) for path in paths).encode()).hexdigest()[:32]


@dataclass
class Journal:
    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    """The last of each mutant."""
    kills: list[Entry] = field(default_factory=list)
    """All of them, the latest last: whoever killed is asked first next time, whatever has changed since."""

    @classmethod
    def at(cls, path: Path) -> Journal:
        journal = cls(path)
        for line in path.read_text().splitlines() if path.exists() else ():
            journal._take(Entry(**json.loads(line)))
        return journal

    def _take(self, entry: Entry) -> None:
        self.entries[entry.mutant] = entry
        if entry.status == "killed":
            self.kills.append(entry)

    def note(self, mutant: Mutant, identity: str, verdict: Verdict, asked: Iterable[str], *, quick: bool) -> None:
        key = text_key(TESTS / file_of(verdict.by))[:32] if verdict.status == "killed" else tests_key(frozenset(asked))
        place = (mutant.place, mutant.function, mutant.operator)
        entry = Entry(*place, identity, key, verdict.status, verdict.by, verdict.code, quick, round(verdict.seconds, 2))
        self._take(entry)
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps(asdict(entry)) + "\n")

    def standing(self, identity: str, files: Iterable[str]) -> Verdict | None:
        """The verdict of an earlier run, if the tests that gave it are as they were; `files`: what would be asked.

        What survived the other tests but was not shown to the random machines is a verdict where these are not asked.
        """
        entry = self.entries.get(identity)
        if entry is None or entry.status == "broken":
            return None
        if entry.status == "killed":
            path = TESTS / file_of(entry.by)
            holds = path.exists() and text_key(path)[:32] == entry.tests
        elif entry.status == "survived":
            holds = entry.tests == tests_key(frozenset(files))
        else:
            holds = True
        return Verdict(entry.status, entry.by, entry.code, entry.seconds) if holds else None

    def survived_all_but_last(self, identity: str, files: Iterable[str]) -> bool:
        entry = self.entries.get(identity)
        others = frozenset(name for name in files if name not in LAST)
        return entry is not None and entry.status == "survived" and entry.tests == tests_key(others)
