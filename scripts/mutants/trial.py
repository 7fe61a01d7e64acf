"""One mutant: compiled in a folder of its own, put in the place of the committed code, and shown to the tests.

Every trial is a forked process of a parent that has collected the tests and built nothing. The code is replaced from
outside, inside that process alone; the wrappers still check it against the pinned hashes, which are the mutant's own.
"""

from __future__ import annotations

import ctypes
import json
import os
import posixpath
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import hypothesis.configuration
from tonpy.libs.python_ton import func_to_asm

import contracts
import scripts.compile
import scripts.gas
import wrappers.code
from scripts.compile import CONTRACTS, RARE, compile_contract, source
from scripts.mutants.operators import Mutant
from scripts.mutants.suite import Suite
from wrappers.cells import from_boc, to_boc
from wrappers.code import Contract


@dataclass(frozen=True, slots=True)
class Verdict:
    status: str
    """`killed`, `survived`, `same code` (as what `by` names), `does not compile`; `broken`: the trial itself failed."""
    by: str = ""
    code: str = ""
    """Fingerprint of all contracts' code."""
    seconds: float = 0.0
    """Of this process and those it started, on the processor."""


Code = Mapping[Contract, bytes]


def affected(sources: Mapping[str, str], file: str) -> list[Contract]:
    """Contracts that `file` is compiled into. Whoever knows a program by its hash changes with it."""
    hit = {contract for contract in Contract if file in closure(sources, source(contract))}
    return [contract for contract in Contract if contract in hit or RARE.get(contract) in hit]


def closure(sources: Mapping[str, str], root: str) -> set[str]:
    """`root` and the files that it includes, also through others."""
    seen, stack = set[str](), [root]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            lines = [line for line in sources[name].splitlines() if line.startswith("#include")]
            stack += [posixpath.normpath(posixpath.join(posixpath.dirname(name), line.split('"')[1])) for line in lines]
    return seen


def _send_assembly(out: Connection, path: Path) -> None:
    os.chdir(scripts.compile.CONTRACTS)
    try:
        out.send(str(func_to_asm([str(path)])))
    except Exception as error:
        out.send(f"{error}")


def _forked_assembly(path: Path) -> str:
    """What scripts.compile.assembly_of does, in a fork instead of a new interpreter: the compiler is loaded already."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_assembly, args=(theirs, path))
    process.start()
    theirs.close()
    try:
        text = str(ours.recv())
    except EOFError:
        text = "the compiler died"
    process.join()
    if "PROGRAM{" not in text:
        raise RuntimeError(f"{path.name} does not compile:\n{text}")
    return text


def compiled(sources: Mapping[str, str], wanted: list[Contract]) -> Code:
    """Bags of the contracts' code. Raises RuntimeError with the compiler's words."""
    with tempfile.TemporaryDirectory() as folder:
        _write(sources, Path(folder))
        scripts.compile.assembly.cache_clear()
        with (
            patch.object(scripts.compile, "CONTRACTS", Path(folder)),
            patch.object(scripts.compile, "assembly_of", _forked_assembly),
        ):
            scripts.compile.write_program_includes()
            return {contract: to_boc(compile_contract(contract)) for contract in wanted}


def _write(sources: Mapping[str, str], folder: Path) -> None:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def in_place(code: Code, sources: Mapping[str, str], suite: Suite) -> Generator[None]:
    """Within the context this process runs `code`, and tests that read the sources read these.

    Only in a process that has built nothing yet.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "contracts"
        shutil.copytree(CONTRACTS, folder)
        _write(sources, folder)
        hashes = {}
        for contract, boc in code.items():
            (folder / "build" / f"{contract}.boc").write_bytes(boc)
            hashes[str(contract)] = from_boc(boc).hash.hex()
        (folder / "build" / "hashes.json").write_text(json.dumps(hashes))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = name
        hypothesis.configuration.set_hypothesis_home_dir(Path(name) / "hypothesis")
        suite.move_paths(CONTRACTS, folder)
        with (
            patch.object(wrappers.code, "resources", SimpleNamespace(files=lambda package: folder)),
            patch.object(contracts, "__file__", str(folder / "__init__.py")),
        ):
            wrappers.code.code.cache_clear()
            wrappers.code.pinned_hashes.cache_clear()
            for contract in Contract:
                if wrappers.code.code(contract).hash.hex() != hashes[contract]:
                    raise RuntimeError(f"the mutant's {contract} was not put in place; review scripts/mutants/trial.py")
            yield


def fingerprint(code: Code) -> str:
    return sha256(b"".join(code[contract] for contract in Contract)).hexdigest()


def attempt(
    mutant: Mutant,
    sources: Mapping[str, str],
    original: Code,
    known: Mapping[str, str],
    suite: Suite,
    tests: list[str],
) -> Verdict:
    """`known`: what stands already for each code, by fingerprint. `tests` are asked in that order."""
    changed = dict(sources) | {mutant.file: mutant.apply(sources[mutant.file])}
    try:
        code = dict(original) | dict(compiled(changed, affected(sources, mutant.file)))
    except RuntimeError as error:
        return Verdict("does not compile", str(error).strip().splitlines()[-1][-200:])
    print_ = fingerprint(code)
    if print_ in known:
        return Verdict("same code", known[print_], print_)
    with in_place(code, changed, suite):
        killers = suite.failed(tests)
    return Verdict("killed", killers[0], print_) if killers else Verdict("survived", "", print_)


PR_SET_PDEATHSIG = 1


def quietly() -> None:
    """A trial is a process group of its own, ends with who started it, and what its tests print goes nowhere."""
    os.setpgrp()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def seconds_used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
