"""What each contract test needs: which contracts it runs, reads or weighs, and how long it takes. From unbroken runs.

A test depends on a contract when a transaction or get method of it runs in the test or in a fixture that it uses, or
when the test itself loads the code; on all of them when it reads a source. A mutant is shown to the tests that depend
on a contract it changed, and to no others.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pytoniq_core import Cell

import wrappers.code
from devnet.engine import Engine
from scripts.mutants.suite import ROOT, TESTS
from wrappers.cells import from_boc
from wrappers.code import Contract, code, living_code

EVERYTHING = frozenset(map(str, Contract))


@dataclass(frozen=True, slots=True)
class Needs:
    contracts: frozenset[str]
    seconds: float
    """With the fixtures of its module."""


Recording = Mapping[str, Needs]
"""By name of the test, in the order in which they stand."""


@dataclass
class Part:
    """A fixture, or a test without its fixtures."""

    contracts: set[str] = field(default_factory=set)
    seconds: float = 0.0


class Recorder:
    """A plugin of the process that runs the unbroken code."""

    def __init__(self) -> None:
        self.fixtures: dict[str, Part] = defaultdict(Part)
        """By name: those of one name in several modules count as one."""
        self.tests: dict[str, Part] = {}
        self.now = Part()
        self.in_session_fixture = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        code.cache_clear()  # so that every test that uses a code loads it
        self.now = self.tests[item.nodeid] = Part()
        started, before = time.process_time(), sum(part.seconds for part in self.fixtures.values())
        result = yield
        in_fixtures = sum(part.seconds for part in self.fixtures.values()) - before
        self.tests[item.nodeid].seconds = max(0.0, time.process_time() - started - in_fixtures)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        outer, self.now = self.now, self.fixtures[f"{fixturedef.scope} {fixturedef.argname}"]
        self.in_session_fixture = fixturedef.scope == "session"
        started = time.process_time()
        try:
            return (yield)
        finally:
            self.now.seconds += time.process_time() - started
            self.now, self.in_session_fixture = outer, False

    def needs(self, item: pytest.Item) -> Needs:
        """Raises KeyError when the test did not run."""
        parts = [self.tests[item.nodeid]]
        names: Iterable[str] = getattr(item, "fixturenames", ())
        wider = [f"{scope} {name}" for name in names for scope in ("class", "module", "package", "session")]
        parts += [self.fixtures[name] for name in wider if name in self.fixtures]
        seconds = sum(self.fixtures[name].seconds for name in wider if name in self.fixtures and name[0] != "s")
        return Needs(frozenset().union(*(part.contracts for part in parts)), parts[0].seconds + seconds)

    def ran(self, contracts: Iterable[str]) -> None:
        self.now.contracts.update(contracts)


@cache
def _codes() -> dict[bytes, str]:
    found = {bytes(code(contract).hash): str(contract) for contract in Contract}
    for contract in (Contract.NODE, Contract.ESCROW, Contract.JOB):
        found[bytes(living_code(code(contract)).hash)] = str(contract)
    return found


# What runs code that a message brings: births and rare programs.
_OPEN_TO_CODE = frozenset(map(str, (Contract.STUB, Contract.NODE, Contract.ESCROW)))


def _run_by(shard_account: Cell, message: Cell) -> set[str]:
    """Contracts whose code a transaction runs: the account's, and what the message brings."""
    own = {_codes()[cell.hash] for cell in shard_account.refs[0].refs if cell.hash in _codes()}
    # Of a message that deploys, the code of its StateInit; of one with a program, whatever is in it.
    levels = 1_000 if own & _OPEN_TO_CODE else 2
    seen, found, row = set[bytes](), own, [message]
    while row and levels >= 0:
        seen.update(cell.hash for cell in row)
        found |= {_codes()[cell.hash] for cell in row if cell.hash in _codes()}
        row = [ref for cell in row for ref in cell.refs if ref.hash not in seen]
        levels -= 1
    return found


def watch(recorder: Recorder) -> None:
    """From now on, in this process, whatever runs or reads a contract is told to the recorder. Cannot be undone."""
    transact, run_get, read = Engine.transact, Engine.run_get, from_boc
    _codes()

    def watched_transact(self: Engine, shard_account: Cell, message: Cell, **options: Any) -> Any:
        recorder.ran(_run_by(shard_account, message))
        return transact(self, shard_account, message, **options)

    def watched_get(self: Engine, code: Cell, data: Cell, **options: Any) -> Any:
        # What is none of the contracts was compiled by the test, perhaps from their sources.
        recorder.ran([_codes()[code.hash]] if code.hash in _codes() else EVERYTHING)
        return run_get(self, code, data, **options)

    def watched_from_boc(data: bytes) -> Cell:
        cell = read(data)
        # A network's genesis takes every code, whatever the test is about.
        if not recorder.in_session_fixture:
            recorder.ran([_codes()[cell.hash]])
        return cell

    def audit(event: str, args: tuple[Any, ...]) -> None:
        reads = event == "open" and str(args[0]).endswith(".fc")
        if reads or (event == "subprocess.Popen" and "func_to_asm" in str(args[1])):
            recorder.ran(EVERYTHING)

    for owner, name, value in (
        (Engine, "transact", watched_transact),
        (Engine, "run_get", watched_get),
        (wrappers.code, "from_boc", watched_from_boc),
    ):
        patch.object(owner, name, value).start()
    sys.addaudithook(audit)


def base_key(original: str) -> str:
    """Fingerprint of what every test stands on. `original`: that of the codes."""
    paths = [path for path in TESTS.glob("*.py") if not path.name.startswith("test_")]
    for folder in ("tests/support", "scripts", "wrappers", "devnet", "chain"):
        paths += [path for path in (ROOT / folder).glob("*.py")]
    return sha256("".join([original, *(text_key(path) for path in sorted(paths))]).encode()).hexdigest()


def text_key(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@dataclass
class Memory:
    """Recordings of earlier runs that still hold, in a file."""

    path: Path
    base: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By test file: its `key`, and for each test its contracts and seconds."""
    alone: dict[str, str] = field(default_factory=dict)
    """Tests that pass with no other before them, with their file's key."""

    @classmethod
    def at(cls, path: Path, base: str) -> Memory:
        stored = json.loads(path.read_text()) if path.exists() else {}
        return cls(path, base, stored["files"], stored["alone"]) if stored.get("base") == base else cls(path, base)

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps({"base": self.base, "files": self.files, "alone": self.alone}))

    def stale(self, files: Iterable[str]) -> list[str]:
        return [name for name in files if self.files.get(name, {}).get("key") != text_key(TESTS / name)]

    def take(self, name: str, needs: Mapping[str, Needs]) -> None:
        tests = {test: [sorted(each.contracts), round(each.seconds, 3)] for test, each in needs.items()}
        self.files[name] = {"key": text_key(TESTS / name), "tests": tests}
        self.save()

    def recording(self, tests: Iterable[str]) -> dict[str, Needs]:
        """Of those that passed."""
        found = {test: row for file in self.files.values() for test, row in file["tests"].items()}
        return {test: Needs(frozenset(found[test][0]), found[test][1]) for test in tests if test in found}
