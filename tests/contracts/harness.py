"""FunC programs of the tests around functions of the contracts, which they call as get methods."""

from __future__ import annotations

from collections.abc import Callable
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytoniq_core import Cell

from devnet.engine import GetResult, PrevBlocks
from devnet.ledger import Ledger
from scripts.compile import assemble, assembly_of

Method = Callable[..., GetResult]


def harness(name: str, contracts: Path) -> Method:
    """`name` of this folder, compiled with the sources in `contracts`: `method("add", 1, 2)` runs its get method.

    `contracts` is given by the test module, whose paths the mutation check moves: mutants are asked here too.
    """
    text = (Path(__file__).parent / name).read_text()
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text.replace("../../contracts/", f"{relpath(contracts, folder)}/"))
        code = assemble(assembly_of(path))
    ledger = Ledger()

    def run(method: str, *stack: Any, blocks: PrevBlocks | None = None) -> GetResult:
        return ledger._engine.run_get(
            code, Cell.empty(), account=bytes(32), balance_nano=10**9, method=method, stack=[*stack],
            now=ledger.now, prev_blocks=blocks or ledger.prev_blocks,
        )  # fmt: skip

    return run
