"""Documents as chains of cells: how evidence and collateral travel to a committee."""

from __future__ import annotations

from pytoniq_core import Cell, begin_cell

from wrappers.cells import CellError

MAX_DOCUMENT_BYTES = 48 * 1024
"""In cells of 127 bytes: no message may be deeper than 512 cells."""
_PIECE_BYTES = 127


def document_cell(data: bytes) -> Cell:
    """Bytes as a chain of cells, how evidence and collateral travel in `ask`. Its hash names them."""
    pieces = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)] or [b""]
    cell: Cell | None = None
    for piece in reversed(pieces):
        builder = begin_cell().store_bytes(piece)
        cell = builder.store_ref(cell).end_cell() if cell is not None else builder.end_cell()
    assert cell is not None
    return cell


def document_bytes(cell: Cell) -> bytes:
    """The bytes of such a chain. Raises CellError for any other cell, and above MAX_DOCUMENT_BYTES."""
    parts: list[bytes] = []
    total = 0
    next_: Cell | None = cell
    while next_ is not None:
        if next_.type_ != -1 or len(next_.bits) % 8 or len(next_.refs) > 1 or (next_.refs and not len(next_.bits)):
            raise CellError("not a chain of bytes")
        part = next_.begin_parse().load_bytes(len(next_.bits) // 8)
        total += len(part)
        if total > MAX_DOCUMENT_BYTES:
            raise CellError(f"a document of more than {MAX_DOCUMENT_BYTES} bytes")
        parts.append(part)
        next_ = next_.refs[0] if next_.refs else None
    return b"".join(parts)
