"""Addresses that follow from who made an account: a registry's children, and the singletons of a network."""

from __future__ import annotations

from enum import IntEnum

from pytoniq_core import Cell, begin_cell

from wrappers.code import Contract, code


class Kind(IntEnum):
    """Kind of a registry's child, in its StateInit."""

    NODE = 1
    ESCROW = 2
    JOB = 3


def _state_init(code_: Cell, data: Cell) -> Cell:
    # TL-B StateInit: no split depth, no tick-tock, code and data present, no library.
    return begin_cell().store_uint(0b00110, 5).store_ref(code_).store_ref(data).end_cell()


def stub_state_init(registry: bytes, kind: Kind, owner: bytes, index: int) -> Cell:
    """StateInit of a child: the constant stub and who it is. `owner` opens it; `index` counts the owner's own."""
    data = begin_cell().store_bytes(registry).store_uint(kind, 8).store_bytes(owner).store_uint(index, 32).end_cell()
    return _state_init(code(Contract.STUB), data)


def child_address(registry: bytes, kind: Kind, owner: bytes, index: int) -> bytes:
    """Account id of a child; the same whatever code it runs now."""
    return bytes(stub_state_init(registry, kind, owner, index).hash)


def singleton_state_init(code_: Cell, genesis_key: bytes, salt: int) -> Cell:
    """StateInit of a registry or attestation contract, inert until the genesis key signs its state."""
    return _state_init(code_, begin_cell().store_bytes(genesis_key).store_uint(salt, 32).end_cell())


def singleton_address(code_: Cell, genesis_key: bytes, salt: int) -> bytes:
    return bytes(singleton_state_init(code_, genesis_key, salt).hash)
