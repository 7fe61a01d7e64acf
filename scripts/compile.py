"""Compiles contracts/*.fc to contracts/build/*.boc and pins their hashes; `--check` compares instead of writing."""

from __future__ import annotations

import argparse
import base64
import json
import re
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
# Files of their own, which include ../common; every other contract is NAME.fc.
SOURCES = {
    Contract.ATTESTATION: "attestation/attestation.fc",
    Contract.NODE_RARE: "node/rare.fc",
    Contract.ESCROW_RARE: "escrow/rare.fc",
}
# Handlers that are seldom needed travel with the message that needs them (docs/adr/0022-rare-programs.md). The code
# that stays knows its program by the hash in a generated file.
RARE = {Contract.NODE: Contract.NODE_RARE, Contract.ESCROW: Contract.ESCROW_RARE}
# The registry's children: what it sends is the program of their birth (docs/adr/0020-birth-programs.md).
CHILDREN = (*RARE, Contract.JOB)


# The compiler keeps global variables of earlier programs within a process and resolves #include against the working
# directory: each contract gets a process of its own, inside the contracts folder.
_COMPILE = "import sys; from tonpy.libs.python_ton import func_to_asm; sys.stdout.write(func_to_asm(sys.argv[1:]))"


def source(contract: Contract) -> str:
    """Path within the contracts folder."""
    return SOURCES.get(contract, f"{contract}.fc")


@cache
def assembly(contract: Contract) -> str:
    """Fift assembly of a contract. Raises RuntimeError with the compiler's words."""
    return assembly_of(CONTRACTS / source(contract))


def assembly_of(path: Path) -> str:
    """Fift assembly of any FunC program. Raises RuntimeError with the compiler's words."""
    command = [sys.executable, "-c", _COMPILE, str(path)]
    run = subprocess.run(command, cwd=CONTRACTS, capture_output=True, text=True, timeout=60)
    if run.returncode or "PROGRAM{" not in run.stdout:
        raise RuntimeError(f"{path.name} does not compile:\n{run.stdout}{run.stderr}")
    return run.stdout


# Three things that the compiler does not do, none a change of meaning:
# - A function that does not fit behind its caller's text gets a cell of its own, where it could begin right there and
#   go on in the next cell: fewer cells to keep and to load. So calls of inline functions are replaced by their text.
# - FunC dispatches through a dictionary of methods, which costs 160 to 380 gas per transaction. So entry points stand
#   in the root cell. Contracts of the hot path have no get methods (their state is decoded from their data); the others
#   have the dictionary behind a jump that messages do not take.
#   A node takes every selector but 0 for an external message: on an account that is not special the chain knows no
#   third one, and a get method, whoever calls it, changes nothing.
# - It begins programs with SETCP0. Code page 0 is what a transaction begins with.
_PROCEDURE = re.compile(r"^  (\S+) (PROC|PROCINLINE|PROCREF|METHOD):<\{\n(.*?)^  \}>\n", re.M | re.S)
_CALL = re.compile(r"^ *(\S+) INLINECALLDICT$", re.M)


def _procedures(text: str) -> dict[str, tuple[str, str]]:
    """Kind and text of every procedure, calls of inline ones replaced by their text."""
    found = {match[1]: (match[2], match[3]) for match in _PROCEDURE.finditer(text)}

    def flat(body: str) -> str:
        return _CALL.sub(lambda call: flat(found[call[1]][1]) if found[call[1]][0] == "PROCINLINE" else call[0], body)

    return {name: (kind, flat(body)) for name, (kind, body) in found.items()}


def with_entry(contract: Contract, text: str) -> str:
    """The assembly with the contract's own dispatch."""
    procedures = _procedures(text)
    shared = {name: body for name, (kind, body) in procedures.items() if kind == "PROCREF"}
    lines = ["PROGRAM{", *(f"  DECLPROC {name}" for name in shared)]
    lines += [line for line in text.splitlines() if line.strip().startswith("DECLGLOBVAR")]
    lines += [f"  {name} PROCREF:<{{\n{body}  }}>" for name, body in shared.items()]

    def entry(name: str) -> str:
        if name not in procedures:
            raise RuntimeError(f"entry point {name} is missing; review scripts/compile.py")
        return procedures[name][1]

    if contract in RARE.values():
        lines.append(f"<{{ {entry('recv_internal')} }}>c")
    elif contract is Contract.NODE:
        lines.append(f"<{{ {entry('recv_external')} }}>c")
        lines.append(f"<{{ swap IFJMPREF\n{entry('recv_internal')} }}>c")
    elif contract in (Contract.STUB, *CHILDREN):
        lines.append(f"<{{ 11 THROWIF\n{entry('recv_internal')} }}>c")
    else:
        methods = to_boc(assemble(_without_messages(text))).hex()
        lines.append(f"<{{ DUP B{{{methods}}} B>boc IFJMPREF DROP\n{entry('recv_internal')} }}>c")
    if contract in CHILDREN:
        # The program of a child's birth: sets the code that stays, its own first reference, then the data.
        lines.append(f"<{{ swap PUSHREF SETCODE\n{entry('birth')} }}>c")
    lines += ["  DECLPROC main", "  main PROC:<{ }>"]  # without one the assembler refuses the program
    return "\n".join([*lines, "}END drop", ""])


def _without_messages(text: str) -> str:
    """The assembly with its dictionary of methods, in which messages find nothing: they never come there."""
    return re.sub(r"^  recv_internal PROC:<\{\n.*?^  \}>\n", "  recv_internal PROC:<{ }>\n", text, flags=re.M | re.S)


def assemble(text: str) -> Cell:
    native = convert_assembler('"Asm.fif" include\n' + text)
    return from_boc(base64.b64decode(native.to_boc()))


def compile_contract(contract: Contract) -> Cell:
    return assemble(with_entry(contract, assembly(contract)))


def program_includes() -> dict[Path, str]:
    """The generated files that tell the code that stays the hash of its rare program."""
    head = ";; Written by scripts/compile.py: the program of rare messages, docs/adr/0022-rare-programs.md.\n"
    return {
        CONTRACTS / str(living) / "program.fc": f"{head}const int rare::hash = 0x{compile_contract(rare).hash.hex()};\n"
        for living, rare in RARE.items()
    }


def write_program_includes() -> None:
    for path, text in program_includes().items():
        path.write_text(text)


def compile_all() -> dict[Contract, Cell]:
    return {contract: compile_contract(contract) for contract in Contract}


def differences() -> list[str]:
    """Contracts whose committed code or pinned hash, and generated files whose text, is not what the sources give."""
    pinned = json.loads((BUILD / "hashes.json").read_text())
    includes = program_includes().items()
    wrong = [
        str(path.relative_to(CONTRACTS)) for path, text in includes if not path.exists() or path.read_text() != text
    ]
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
    write_program_includes()
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
