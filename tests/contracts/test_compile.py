"""The committed code is what the sources give, with the pip-only compiler and with func-js."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import contracts
from scripts.compile import BUILD, CONTRACTS, assemble, assembly, differences, source, with_entry
from wrappers.code import Contract, code, living_code, pinned_hashes, rare_program, size_of

ROOT = Path(contracts.__file__).parent.parent
FUNC_JS = ROOT / "node_modules" / "@ton-community" / "func-js"
SCRIPT = """
const { compileFunc } = require('@ton-community/func-js');
const fs = require('fs'), path = require('path');
(async () => {
  const out = {};
  for (const [name, source] of Object.entries(JSON.parse(process.argv[1]))) {
    const r = await compileFunc({
      targets: [source],
      sources: (p) => fs.readFileSync(path.join('contracts', p)).toString(),
    });
    if (r.status === 'error') throw new Error(r.message);
    out[name] = { code: r.codeBoc, fift: r.fiftCode };
  }
  console.log(JSON.stringify(out));
})().catch((e) => { console.error(e); process.exit(1); });
"""


def body_of(fift: str) -> str:
    """Assembly without comments and the compiler's own head and tail."""
    lines = [line for line in fift.splitlines() if not line.strip().startswith("//")]
    text = "\n".join(lines)
    return re.sub(r"\s+", " ", text.replace('"Asm.fif" include', "").rpartition("}END>c")[0]).strip()


def test_committed_code_is_what_the_sources_give() -> None:
    assert differences() == []


def test_the_code_that_stays_names_the_program_of_its_rare_messages() -> None:
    for contract in (Contract.NODE, Contract.ESCROW):
        text = (CONTRACTS / str(contract) / "program.fc").read_text()
        assert f"const int rare::hash = 0x{rare_program(contract).hash.hex()};" in text


def test_pinned_hashes_are_those_of_the_files() -> None:
    assert json.loads((BUILD / "hashes.json").read_text()) == pinned_hashes()
    for contract in Contract:
        assert code(contract).hash.hex() == pinned_hashes()[contract]


@pytest.mark.skipif(
    shutil.which("node") is None or not FUNC_JS.exists(),
    reason="Node or node_modules is missing: run `npm ci --ignore-scripts` to compare with func-js",
)
def test_func_js_gives_the_same_code() -> None:
    run = subprocess.run(
        ["node", "-e", SCRIPT, json.dumps({str(contract): source(contract) for contract in Contract})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    theirs = json.loads(run.stdout)
    for contract in Contract:
        ours = assembly(contract)
        assert body_of(theirs[contract]["fift"]) == body_of(ours), contract
        # The whole program, with the entry points that scripts/compile.py gives it, from their assembly.
        head = '"Asm.fif" include'
        program = theirs[contract]["fift"].split(head, 1)[-1]
        program = "\n".join(line for line in program.splitlines() if not line.strip().startswith("//"))
        assert assemble(with_entry(contract, program)).hash == code(contract).hash, contract


@pytest.mark.parametrize(("contract", "cells"), [(Contract.ESCROW, 20), (Contract.NODE, 14)])
def test_code_does_not_grow_unnoticed(contract: Contract, cells: int) -> None:
    """The design's budgets, of the code that stays in an account."""
    assert size_of(living_code(code(contract)))[0] <= cells


def test_the_registry_does_not_grow_unnoticed() -> None:
    assert size_of(code(Contract.REGISTRY))[0] <= 56


def test_sources_are_all_in_the_contracts_folder() -> None:
    assert CONTRACTS == ROOT / "contracts"


def flattened(path: Path, seen: set[Path]) -> list[str]:
    """Lines of a program in the order in which the compiler reads them, without comments."""
    if path.resolve() in seen:
        return []
    seen.add(path.resolve())
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if include := re.match(r'#include "(.+)";', line):
            lines += flattened(path.parent / include[1], seen)
        else:
            lines.append(line.split(";;")[0])
    return lines


@pytest.mark.parametrize("path", [p for p in CONTRACTS.rglob("*.fc") if "recv_internal" in p.read_text()], ids=str)
def test_every_function_is_defined_before_its_use(path: Path) -> None:
    """The compiler takes a function that it does not know yet for one without effects, and drops calls whose result
    nobody reads: a check that is defined too late would never run."""
    text = "\n".join(flattened(path, set()))
    defined: dict[str, int] = {}
    for m in re.finditer(r"^[^\s#].*?[ ~](\w+\??)\([^;{]*\)[^;{]*(?:\{| asm)", text, re.M):
        defined.setdefault(m[1], m.start())
    assert "recv_internal" in defined
    for name, at in defined.items():
        first = re.search(rf"(?<![\w:?]){re.escape(name)}\(", text)
        assert first is not None and first.start() >= at, name
