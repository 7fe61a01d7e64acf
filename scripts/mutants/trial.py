"""One mutant: compiled in a folder of its own, put in the place of the committed code, and shown to the tests.

Every trial is a forked process of a parent that has imported everything and built nothing. The code is replaced from
outside, inside that process alone; the wrappers still check it against the pinned hashes, which are the mutant's own.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

# Imported for the children, which would each take a second for it: what the tests and pytest's plugins stand on.
import hypothesis.stateful  # noqa: F401
import pytest
import pytest_asyncio  # noqa: F401
import pytest_timeout  # type: ignore[import-untyped]  # noqa: F401

import contracts
import scripts.compile
import scripts.gas
import wrappers.code
from scripts.compile import CONTRACTS, RARE, compile_contract, source
from scripts.mutants.operators import Mutant
from wrappers.cells import from_boc, to_boc
from wrappers.code import Contract

ROOT = Path(scripts.compile.__file__).parent.parent
TESTS = ROOT / "tests" / "contracts"
# These hold the code or its gas fast, whatever it does, or do not run it: they would kill every mutant for no reason.
PINS = ("test_compile.py", "test_gas.py", "test_two_engines.py", "test_mutants_check.py")
PINNING_TESTS = ("test_fees.py::test_g8_gas_constant_is_at_least_the_worst_case_and_at_most_a_tenth_above",)
# Random and slow: asked last, always with the same seed.
LAST = "test_machine.py"
# No rewriting of assertions, no cache: nobody reads what the tests say here.
_PYTEST = [
    "-x",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:anyio",
    "--assert=plain",
    "--tb=no",
    "-W",
    "ignore",
    "--hypothesis-seed=0",
]
# Test file to ask first, by the beginning of the mutated file's path; no order changes who kills in the end.
FIRST = {
    "node": "test_node.py",
    "escrow": "test_escrow.py",
    "registry": "test_registry.py",
    "stub": "test_registry.py",
    "job": "test_job.py",
    "court": "test_court.py",
    "attestation": "test_registry.py",
    "common/genesis": "test_registry.py",
    "common/gas": "test_fees.py",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    status: str
    """`killed`, `survived`, `same code` (as what `by` names), `does not compile`; `broken`: the trial itself failed."""
    by: str = ""
    code: str = ""
    """Fingerprint of all contracts' code."""


Code = Mapping[Contract, bytes]


def test_files(file: str, *, quick: bool) -> list[str]:
    """Every test file that can kill, the likeliest first; `quick` leaves out the state machine."""
    names = sorted(path.name for path in TESTS.glob("test_*.py") if path.name not in PINS)
    names = [name for name in names if not (quick and name == LAST)]
    if not file.startswith(("attestation", "common")):  # they run no code but that of the evidence, for a minute
        names = [name for name in names if not name.startswith("test_attestation")]
    first = next((test for start, test in FIRST.items() if file.startswith(start)), "")
    return [str(TESTS / name) for name in sorted(names, key=lambda name: (name == LAST, name != first, name))]


def affected(sources: Mapping[str, str], file: str) -> list[Contract]:
    """Contracts that `file` is compiled into. Whoever knows a program by its hash changes with it."""
    hit = {contract for contract in Contract if file in _closure(sources, source(contract))}
    return [contract for contract in Contract if contract in hit or RARE.get(contract) in hit]


def _closure(sources: Mapping[str, str], root: str) -> set[str]:
    seen, stack = set[str](), [root]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            lines = [line for line in sources[name].splitlines() if line.startswith("#include")]
            stack += [posixpath.normpath(posixpath.join(posixpath.dirname(name), line.split('"')[1])) for line in lines]
    return seen


def compiled(sources: Mapping[str, str], wanted: list[Contract]) -> Code:
    """Bags of the contracts' code. Raises RuntimeError with the compiler's words."""
    with tempfile.TemporaryDirectory() as folder:
        _write(sources, Path(folder))
        scripts.compile.assembly.cache_clear()
        with patch.object(scripts.compile, "CONTRACTS", Path(folder)):
            scripts.compile.write_program_includes()
            return {contract: to_boc(compile_contract(contract)) for contract in wanted}


def _write(sources: Mapping[str, str], folder: Path) -> None:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class _FirstFailure:
    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid.rpartition("/")[2]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.test:
            self.test = f"collecting {report.nodeid}"


def ask_tests(code: Code, sources: Mapping[str, str], file: str, *, quick: bool) -> str:
    """Name of the test that fails with this code, empty when all pass. Only in a process that has built nothing yet.

    Tests that read the sources read those of the mutant, too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(CONTRACTS, folder, dirs_exist_ok=True)
        _write(sources, folder)
        build = folder / "build"
        hashes = {}
        for contract, boc in code.items():
            (build / f"{contract}.boc").write_bytes(boc)
            hashes[str(contract)] = from_boc(boc).hash.hex()
        (build / "hashes.json").write_text(json.dumps(hashes))
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
        wrappers.code.code.cache_clear()
        wrappers.code.pinned_hashes.cache_clear()
        with (
            patch.object(wrappers.code, "resources", SimpleNamespace(files=lambda package: folder)),
            patch.object(contracts, "__file__", str(folder / "__init__.py")),
        ):
            for contract in Contract:
                if wrappers.code.code(contract).hash.hex() != hashes[contract]:
                    raise RuntimeError(f"the mutant's {contract} was not put in place; review scripts/mutants/trial.py")
            likeliest, *others = test_files(file, quick=quick)
            return _failure_of([likeliest]) or _failure_of(others)


def _failure_of(files: list[str]) -> str:
    failure = _FirstFailure()
    deselected = [f"--deselect=tests/contracts/{test}" for test in PINNING_TESTS]
    status = pytest.main([*_PYTEST, f"--rootdir={ROOT}", *deselected, *files], plugins=[failure])
    return "" if status == pytest.ExitCode.OK else failure.test or f"pytest ended with {status!r}"


def fingerprint(code: Code) -> str:
    return sha256(b"".join(code[contract] for contract in Contract)).hexdigest()


def attempt(
    mutant: Mutant, sources: Mapping[str, str], original: Code, known: Mapping[str, str], *, quick: bool
) -> Verdict:
    """`known`: what stands already for each code, by fingerprint."""
    changed = dict(sources) | {mutant.file: mutant.apply(sources[mutant.file])}
    try:
        code = dict(original) | dict(compiled(changed, affected(sources, mutant.file)))
    except RuntimeError as error:
        return Verdict("does not compile", str(error).strip().splitlines()[-1][-200:])
    print_ = fingerprint(code)
    if print_ in known:
        return Verdict("same code", known[print_], print_)
    killer = ask_tests(code, changed, mutant.file, quick=quick)
    return Verdict("killed", killer, print_) if killer else Verdict("survived", "", print_)


def run_in_child(
    out: Connection,
    mutant: Mutant,
    sources: Mapping[str, str],
    original: Code,
    known: Mapping[str, str],
    quick: bool,
) -> None:
    """Body of a trial process: sends one Verdict. What the tests print goes nowhere."""
    os.setpgrp()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
        try:
            verdict = attempt(mutant, sources, original, known, quick=quick)
        except Exception as error:  # a fault of the trial must not pass for a kill
            verdict = Verdict("broken", repr(error))
        out.send(verdict)
    out.close()
