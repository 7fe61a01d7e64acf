"""Records what the devnet's engine executes. A pytest plugin: `pytest -p scripts.engines.recorder --record FILE`.

The engine is patched from outside, so that nothing that runs in earnest carries a switch for it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

import pytest
from pytoniq_core import Cell, Slice
from tonpy.tvm.tvm import method_name_to_id

from chain.api import BlockId
from devnet import engine
from devnet.engine import GET_METHOD_GAS, Accepted, Engine, GetResult, Outcome, PrevBlocks, StackValue
from wrappers.cells import to_boc


@dataclass
class Recording:
    """One JSON object a line: configurations and block lists (named by number, in order of appearance), then runs."""

    out: TextIO
    configs: dict[bytes, int] = field(default_factory=dict)
    blocks: dict[PrevBlocks, int] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    seen: int = 0
    """Runs before those that were recorded already are left out."""

    def write(self, **fields: Any) -> None:
        self.out.write(json.dumps(fields) + "\n")

    def config(self, cell: Cell) -> int:
        if cell.hash not in self.configs:
            self.configs[cell.hash] = len(self.configs)
            self.write(kind="config", cell=encoded(cell))
        return self.configs[cell.hash]

    def prev_blocks(self, blocks: PrevBlocks) -> int:
        if blocks not in self.blocks:
            self.blocks[blocks] = len(self.blocks)
            self.write(
                kind="blocks",
                last=[block_fields(block) for block in blocks.last],
                key=block_fields(blocks.key),
                hundreds=[block_fields(block) for block in blocks.hundreds],
            )
        return self.blocks[blocks]

    def is_new(self, *parts: object) -> bool:
        self.seen += 1
        key = sha256(repr(parts).encode()).digest()
        new = key not in self.keys
        self.keys.add(key)
        return new

    def transaction(
        self, config: Cell, shard_account: Cell, message: Cell, outcome: Outcome, options: dict[str, Any]
    ) -> None:
        now, lt = options["now"], options["lt"]
        ignore = bool(options.get("ignore_signatures", False))
        where = (self.config(config), self.prev_blocks(options["prev_blocks"]))
        if not self.is_new("transaction", where, shard_account.hash, message.hash, now, lt, ignore):
            return
        if isinstance(outcome, Accepted):
            expected: dict[str, Any] = {
                "transaction": encoded(outcome.transaction),
                "transaction_hash": outcome.transaction.hash.hex(),
                "account_hash": outcome.shard_account.hash.hex(),
            }
        else:
            expected = {"refused_with": outcome.exit_code}
        self.write(
            kind="transaction",
            config=where[0],
            blocks=where[1],
            account=encoded(shard_account),
            message=encoded(message),
            now=now,
            lt=str(lt),
            seed=engine._seed(now, lt).hex(),
            ignore_signatures=ignore,
            expected=expected,
        )

    def get(self, config: Cell, code: Cell, data: Cell, result: GetResult, options: dict[str, Any]) -> None:
        name = options["method"]
        method = name if isinstance(name, int) else int(method_name_to_id(name))
        stack = [plain(value) for value in options["stack"]]
        now, lt, balance = options["now"], options.get("lt", 0), options["balance_nano"]
        account = options["account"].hex()
        where = (self.config(config), self.prev_blocks(options["prev_blocks"]))
        if not self.is_new("get", where, code.hash, data.hash, account, balance, method, stack, now):
            return
        self.write(
            kind="get",
            config=where[0],
            blocks=where[1],
            code=encoded(code),
            data=encoded(data),
            account=account,
            balance=str(balance),
            method=method,
            stack=stack,
            now=now,
            seed=engine._seed(now, lt).hex(),
            gas_limit=str(GET_METHOD_GAS),
            expected={
                "exit_code": result.exit_code,
                "gas": result.gas_used,
                "stack": [plain(value) for value in result.stack],
            },
        )


def encoded(cell: Cell) -> str:
    return base64.b64encode(to_boc(cell)).decode()


def block_fields(block: BlockId) -> list[str]:
    """Decimal seqno, hex root hash, hex file hash; workchain -1 and the whole shard in every one."""
    return [str(block.seqno), block.root_hash.hex(), block.file_hash.hex()]


def plain(value: StackValue) -> object:
    """A stack value as JSON: integers in decimal, cells and slices by bag, tuples as lists."""
    match value:
        case None:
            return None
        case int():
            return str(value)
        case Cell():
            return {"cell": encoded(value)}
        case Slice():
            return {"slice": encoded(value.to_cell())}
        case _:
            return [plain(item) for item in value]


@contextmanager
def recording(path: Path) -> Generator[Recording]:
    """Within the context, everything that any Engine executes is written to `path`, each distinct run once."""
    transact, run_get = Engine.transact, Engine.run_get
    with path.open("w") as out:
        record = Recording(out)

        def recorded_transact(self: Engine, shard_account: Cell, message: Cell, **options: Any) -> Outcome:
            outcome = transact(self, shard_account, message, **options)
            record.transaction(self._config, shard_account, message, outcome, options)
            return outcome

        def recorded_get(self: Engine, code: Cell, data: Cell, **options: Any) -> GetResult:
            options["stack"] = list(options["stack"])
            result = run_get(self, code, data, **options)
            record.get(self._config, code, data, result, options)
            return result

        with (
            patch.object(Engine, "transact", recorded_transact),
            patch.object(Engine, "run_get", recorded_get),
        ):
            yield record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write everything that the devnet's engine executes to this file")


_open: list[Any] = []


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--record")
    if path is not None:
        context = recording(path)
        context.__enter__()
        _open.append(context)


def pytest_unconfigure(config: pytest.Config) -> None:
    while _open:
        _open.pop().__exit__(None, None, None)
