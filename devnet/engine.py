"""One transaction or one get method on tonpy's TVM (version 11). Knows no ledger and no blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

from pytoniq_core import Cell, HashMap, Slice, begin_cell
from tonpy.tvm.emulator import Emulator
from tonpy.tvm.tvm import TVM, method_name_to_id
from tonpy.types import Cell as NativeCell
from tonpy.types import CellSlice as NativeSlice

from chain.api import BlockId
from devnet.native import from_native, to_native
from devnet.network import config_parameters
from wrappers.cells import address_of

StackValue: TypeAlias = "int | Cell | Slice | list[StackValue] | None"

GET_METHOD_GAS = 1_000_000
_C7_MAGIC = 0x076EF1EA
_FULL_SHARD = 1 << 63
# Order of the unpacked configuration tuple in c7, after the storage prices (TVM v6).
_UNPACKED_PARAMETERS = (19, 20, 21, 24, 25, 43)
_REFUSED_UNRUN = "inbound external message rejected"
_TERMINATED = re.compile(r"terminating vm with exit code (-?\d+)")


class DevnetError(Exception):
    """The devnet itself was asked for something impossible. Says what and the cure."""


@dataclass(frozen=True, slots=True)
class PrevBlocks:
    """What PREVMCBLOCKS, PREVKEYBLOCK and PREVMCBLOCKS_100 return: newest first, at most 16 each."""

    last: tuple[BlockId, ...]
    key: BlockId
    hundreds: tuple[BlockId, ...]
    """Blocks whose seqno is a multiple of 100."""


@dataclass(frozen=True, slots=True)
class Accepted:
    transaction: Cell
    shard_account: Cell


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """An external message that the account did not accept: no transaction, nothing charged."""

    exit_code: int | None
    """None where the code ended without accepting or did not run at all."""
    log: str


Outcome: TypeAlias = Accepted | NotAccepted


@dataclass(frozen=True, slots=True)
class GetResult:
    exit_code: int
    """0 and 1 are success."""
    stack: list[StackValue]
    """Bottom first."""
    gas_used: int


class Engine:
    """TVM under one configuration (`Hashmap 32 ^Cell`)."""

    def __init__(self, config: Cell) -> None:
        self._config = config
        self._native_config = to_native(config)
        self._emulator = Emulator(self._native_config)
        self._prev_blocks: PrevBlocks | None = None
        self._unpacked = self._unpack(config_parameters(config))

    def transact(
        self,
        shard_account: Cell,
        message: Cell,
        *,
        now: int,
        lt: int,
        prev_blocks: PrevBlocks,
        ignore_signatures: bool = False,
    ) -> Outcome:
        """Run `message` (`Message Any`) on `shard_account` (`ShardAccount`) at `now` (unix seconds).

        The random seed follows from `lt` and `now`: a run is repeatable to the bit.
        `ignore_signatures` is for estimates.
        """
        emulator = self._emulator
        if prev_blocks is not self._prev_blocks:  # half the time of a small transaction goes into this call
            emulator.set_prev_blocks_info(_prev_blocks_tuple(prev_blocks))
            self._prev_blocks = prev_blocks
        emulator.set_rand_seed(_seed(now, lt).hex().upper())
        emulator.set_ignore_chksig(ignore_signatures)
        try:
            accepted = emulator.emulate_transaction(to_native(shard_account), to_native(message), now, lt)
        except RuntimeError as error:
            # tonpy raises where an external message fails before any code ran, and on messages that it cannot read.
            if _REFUSED_UNRUN in str(error):
                return NotAccepted(None, str(error))
            raise DevnetError(
                f"the emulator cannot execute this message: {error}; check it against block.tlb"
            ) from error
        if not accepted:
            log = str(emulator.emulator.vm_log)
            return NotAccepted(_exit_code(log), log)
        return Accepted(
            from_native(NativeCell(emulator.emulator.transaction_cell)),
            from_native(NativeCell(emulator.emulator.account_cell)),
        )

    def run_get(
        self,
        code: Cell,
        data: Cell,
        *,
        account: bytes,
        balance_nano: int,
        method: str | int,
        stack: Sequence[StackValue],
        now: int,
        prev_blocks: PrevBlocks,
        lt: int = 0,
    ) -> GetResult:
        """Run a get method (by name or id) with `stack` bottom first and at most GET_METHOD_GAS."""
        native_code = to_native(code)
        tvm = TVM(code=native_code, data=to_native(data))
        tvm.set_gas_limit(GET_METHOD_GAS, GET_METHOD_GAS)
        tvm.set_c7(
            [
                _C7_MAGIC,
                0,  # actions
                0,  # messages sent
                now,
                lt,
                lt,
                int.from_bytes(_seed(now, lt), "big"),
                [balance_nano, None],
                to_native(begin_cell().store_address(address_of(account)).end_cell()).begin_parse(),
                self._native_config,
                native_code,
                [0, None],  # incoming value
                0,  # storage fees
                _prev_blocks_tuple(prev_blocks),
                self._unpacked,
                0,  # due payment
                None,  # precompiled gas usage
            ]
        )
        method_id = method if isinstance(method, int) else int(method_name_to_id(method))
        tvm.set_stack([*(_push(value) for value in stack), method_id])
        result = tvm.run(unpack_stack=False, allow_non_success=True)
        exit_code = int(tvm.exit_code)
        values = [_pull(value) for value in result.unpack_rec()] if exit_code in (0, 1) else []
        return GetResult(exit_code, values, int(tvm.gas_used))

    def _unpack(self, parameters: dict[int, Cell]) -> list[Any]:
        storage: Any = HashMap.parse(parameters[18].begin_parse(), 32, value_deserializer=lambda s: s.to_cell())
        latest = storage[max(storage)]
        slices: list[Any] = [to_native(latest).begin_parse()]
        for number in _UNPACKED_PARAMETERS:
            slices.append(to_native(parameters[number]).begin_parse() if number in parameters else None)
        return slices


def _seed(now: int, lt: int) -> bytes:
    return sha256(b"devnet randomness" + now.to_bytes(8, "big") + lt.to_bytes(8, "big")).digest()


def _exit_code(log: str) -> int | None:
    found = _TERMINATED.findall(log)
    if found:
        return int(found[-1])
    return -14 if "out-of-gas" in log else None


def _block_tuple(block: BlockId) -> list[int]:
    root, file = int.from_bytes(block.root_hash, "big"), int.from_bytes(block.file_hash, "big")
    return [-1, _FULL_SHARD, block.seqno, root, file]


def _prev_blocks_tuple(blocks: PrevBlocks) -> list[Any]:
    return [
        [_block_tuple(block) for block in blocks.last],
        _block_tuple(blocks.key),
        [_block_tuple(block) for block in blocks.hundreds],
    ]


def _push(value: StackValue) -> Any:
    if isinstance(value, Cell):
        return to_native(value)
    if isinstance(value, Slice):
        return to_native(value.to_cell()).begin_parse()
    if isinstance(value, list):
        return [_push(item) for item in value]
    return value


def _pull(value: Any) -> StackValue:
    if value is None:
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, NativeCell):
        return from_native(value)
    if isinstance(value, NativeSlice):
        slice_: Slice = from_native(value.to_cell()).begin_parse()
        return slice_
    if isinstance(value, list | tuple):
        return [_pull(item) for item in value]
    raise DevnetError(
        f"a get method left a {type(value).__name__} on its stack; return an integer, cell, slice or tuple"
    )
