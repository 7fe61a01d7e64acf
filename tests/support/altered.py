"""Cells as their builders never write them."""

from __future__ import annotations

from pytoniq_core import Cell, begin_cell


def with_bits(cell: Cell, bits: str) -> Cell:
    """The references of `cell` under other bits."""
    builder = begin_cell().store_bits(bits)
    for ref in cell.refs:
        builder.store_ref(ref)
    return builder.end_cell()


def with_ref(cell: Cell, index: int, new: Cell) -> Cell:
    builder = begin_cell().store_bits(cell.bits)
    for number, ref in enumerate(cell.refs):
        builder.store_ref(new if number == index else ref)
    return builder.end_cell()


def flipped(cell: Cell, offset: int) -> Cell:
    """With the bit at `offset` turned over; with a bit more at the end for -1."""
    bits = cell.bits.to01()
    return with_bits(cell, bits + "0" if offset < 0 else with_number(bits, offset, 1, 1 - int(bits[offset])))


def with_number(bits: str, offset: int, width: int, number: int) -> str:
    return bits[:offset] + format(number, f"0{width}b") + bits[offset + width :]
