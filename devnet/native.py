"""Cells on both sides of the emulator's border: tonpy's, and pytoniq-core's that everything else uses.

An account goes into the emulator and comes out of it with nearly all of its cells unchanged. Building them anew in
Python takes ten times as long as the run itself, so a cell that was seen is taken again. Cells are immutable.
"""

from __future__ import annotations

import base64

from bitarray import bitarray
from pytoniq_core import Cell
from pytoniq_core.boc.tvm_bitarray import TvmBitarray
from tonpy.types import Cell as NativeCell

from wrappers.cells import to_boc

# Some 60 MB of cells at most.
MAX_SEEN = 40_000
MAX_NATIVE = 4_000

_seen: dict[tuple[bytes, ...], Cell] = {}
"""By descriptors and data, then the hashes of the references: what a cell's hash is of."""
_native: dict[bytes, NativeCell] = {}
"""By hash."""


def to_native(cell: Cell) -> NativeCell:
    known = _native.get(cell.hash)
    return _remembered(cell, NativeCell(base64.b64encode(to_boc(cell)).decode())) if known is None else known


def from_native(cell: NativeCell) -> Cell:
    found = _decoded(base64.b64decode(cell.to_boc()))
    _remembered(found, cell)
    return found


def _remembered(cell: Cell, native: NativeCell) -> NativeCell:
    if len(_native) >= MAX_NATIVE:
        _native.clear()
    _native[cell.hash] = native
    return native


def _decoded(data: bytes) -> Cell:
    """The root of a bag that the emulator wrote (TL-B: serialized_boc#b5ee9c72, one root, none absent).

    Not for bags from outside: those go through wrappers.cells.from_boc.
    """
    flags, offset_width = data[4], data[5]
    width = flags & 7
    at = 6
    count, roots, absent = (int.from_bytes(data[at + i * width : at + (i + 1) * width], "big") for i in range(3))
    at += 3 * width + offset_width
    if data[:4] != b"\xb5\xee\x9c\x72" or roots != 1 or absent:
        raise ValueError("the emulator wrote no bag of one root: compare tonpy's version with requirements.lock")
    root = int.from_bytes(data[at : at + width], "big")
    at += width + (count * offset_width if flags & 0x80 else 0)
    rows = list[tuple[bytes, list[int]]]()
    for _ in range(count):
        first, second = data[at], data[at + 1]
        at += 2
        if first & 16:  # hashes and depths are written, too
            at += 34 * ((first >> 5).bit_count() + 1)
        size = (second + 1) >> 1
        own = bytes((first & ~16, second)) + data[at : at + size]
        at += size
        refs = [int.from_bytes(data[at + i * width : at + (i + 1) * width], "big") for i in range(first & 7)]
        at += (first & 7) * width
        rows.append((own, refs))
    if len(_seen) + count > MAX_SEEN:
        _seen.clear()
    cells = dict[int, Cell]()
    for index in range(count - 1, -1, -1):
        own, refs = rows[index]
        children = [cells[ref] for ref in refs]
        key = (own, *(child.hash for child in children))
        known = _seen.get(key)
        if known is None:
            known = _seen[key] = Cell(_bits(own), children, _kind(own))
        cells[index] = known
    return cells[root]


def _bits(own: bytes) -> TvmBitarray:
    bits = bitarray()
    bits.frombytes(own[2:])
    if own[1] & 1:  # the last one bit ends what does not fill its byte
        while not bits.pop():
            pass
    return TvmBitarray(1023, bits)


def _kind(own: bytes) -> int:
    """Of an exotic cell its type, -1 of an ordinary one."""
    return own[2] if own[0] & 8 else -1
