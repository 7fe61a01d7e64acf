"""Compiles contracts/*.fc to contracts/build/*.boc and pins their hashes; `--check` compares instead of writing."""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from pytoniq_core import Cell
from tonpy.fift.fift import convert_assembler

from wrappers.cells import from_boc, to_boc
from wrappers.code import Contract

CONTRACTS = Path(__file__).parent.parent / "contracts"
BUILD = CONTRACTS / "build"


# The compiler keeps global variables of earlier programs within a process and resolves #include against the working
# directory: each contract gets a process of its own, inside the contracts folder.
_COMPILE = "import sys; from tonpy.libs.python_ton import func_to_asm; sys.stdout.write(func_to_asm(sys.argv[1:]))"


@cache
def assembly(contract: Contract) -> str:
    """Fift assembly of a contract. Raises RuntimeError with the compiler's words."""
    command = [sys.executable, "-c", _COMPILE, f"{contract}.fc"]
    run = subprocess.run(command, cwd=CONTRACTS, capture_output=True, text=True, timeout=60)
    if run.returncode or "PROGRAM{" not in run.stdout:
        raise RuntimeError(f"{contract}.fc does not compile:\n{run.stdout}{run.stderr}")
    return run.stdout


# FunC dispatches through a dictionary of methods, which costs 160 to 260 gas per transaction. Contracts of the hot path
# have no get methods (their state is decoded from their data), so that their entry points can stand in the root cell.
_PROCEDURE = '}}END dup {id} swap 19 idict@ not abort"entry point {id} is missing"'
_INTERNAL_ONLY = _PROCEDURE.format(id=0) + " nip <{ SETCP0 11 THROWIF swap INLINE }>c"
_WITH_EXTERNAL = (
    _PROCEDURE.format(id=0)
    + ' swap dup -1 swap 19 idict@ not abort"entry point -1 is missing" nip'
    + " <{ INC 11 THROWIF swap INLINE }>c swap"
    + " <{ SETCP0 DUP rot IFJMPREF DROP swap INLINE }>c"
)
ENTRY = {
    Contract.STUB: _INTERNAL_ONLY,
    Contract.ESCROW: _INTERNAL_ONLY,
    Contract.NODE: _WITH_EXTERNAL,
}


def with_entry(contract: Contract, text: str) -> str:
    """The assembly with the contract's own dispatch at the end."""
    head, end, tail = text.rpartition("}END>c")
    if not end or tail.strip():
        raise RuntimeError("the compiler's output does not end as it used to; review scripts/compile.py")
    return head + ENTRY.get(contract, end) + "\n"


def assemble(text: str) -> Cell:
    native = convert_assembler('"Asm.fif" include\n' + text)
    return from_boc(base64.b64decode(native.to_boc()))


def compile_contract(contract: Contract) -> Cell:
    return assemble(with_entry(contract, assembly(contract)))


def compile_all() -> dict[Contract, Cell]:
    return {contract: compile_contract(contract) for contract in Contract}


def differences() -> list[str]:
    """Contracts whose committed code or pinned hash is not what the sources give."""
    pinned = json.loads((BUILD / "hashes.json").read_text())
    wrong = []
    for contract, cell in compile_all().items():
        path = BUILD / f"{contract}.boc"
        if not path.exists() or path.read_bytes() != to_boc(cell) or pinned.get(contract) != cell.hash.hex():
            wrong.append(str(contract))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed code, write nothing")
    if parser.parse_args().check:
        wrong = differences()
        if wrong:
            print(f"committed code of {', '.join(wrong)} is not what the sources give: run `make contracts`, review")
            return 1
        print("committed code is what the sources give")
        return 0
    BUILD.mkdir(exist_ok=True)
    compiled = compile_all()
    for contract, cell in compiled.items():
        (BUILD / f"{contract}.boc").write_bytes(to_boc(cell))
    hashes = {str(contract): cell.hash.hex() for contract, cell in compiled.items()}
    (BUILD / "hashes.json").write_text(json.dumps(hashes, indent=2) + "\n")
    for name, value in hashes.items():
        print(f"{name:12} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
