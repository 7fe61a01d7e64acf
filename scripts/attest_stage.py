"""Compiles the attestation contract and stages it on the emulated ledger. For its tests and `make attest-demo`."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from pytoniq_core import Cell

from scripts.compile import CONTRACTS, assemble

SOURCE = CONTRACTS / "attestation" / "attestation.fc"
# One process each: the compiler keeps global variables of earlier programs within a process.
_COMPILE = "import sys; from tonpy.libs.python_ton import func_to_asm; sys.stdout.write(func_to_asm(sys.argv[1:]))"


@cache
def compiled(source: Path = SOURCE) -> Cell:
    """Code of a FunC program. Raises RuntimeError with the compiler's words."""
    command = [sys.executable, "-c", _COMPILE, str(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if run.returncode or "PROGRAM{" not in run.stdout:
        raise RuntimeError(f"{source.name} does not compile:\n{run.stdout}{run.stderr}")
    return assemble(run.stdout)
