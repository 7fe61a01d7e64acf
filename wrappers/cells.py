"""Bag-of-cells codec and small cell helpers, safe on cells from outside.

`pytoniq_core.Cell.to_boc()` walks every reference path, which is exponential on shared cells (an 86-byte bag can take a
minute): everything that serializes goes through `to_boc`, which visits each cell once.
"""

from __future__ import annotations

from enum import IntEnum

from pytoniq_core import Address, Builder, Cell, Slice, begin_cell

MAX_BOC_BYTES = 1 << 20
MAX_CELLS = 65_536 + 64
"""What an account may hold (configuration parameter 43, max_acc_state_cells), and what stands around it."""
MAX_STATE_BYTES = 144 * MAX_CELLS
"""At most 127 bytes of data, two descriptors and four references each. The verifier's state grows with its machines."""
_MAGIC = bytes.fromhex("b5ee9c72")


class CellError(ValueError):
    """The bytes are not the one bag of cells that was expected."""


def _topological(roots: tuple[Cell, ...]) -> list[Cell]:
    seen: set[bytes] = set()
    order: list[Cell] = []
    stack: list[tuple[Cell, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        cell, done = stack.pop()
        if done:
            order.append(cell)
        elif cell.hash not in seen:
            seen.add(cell.hash)
            stack.append((cell, True))
            stack.extend((ref, False) for ref in reversed(cell.refs))
    order.reverse()
    return order


def to_boc(*roots: Cell) -> bytes:
    """Serialize one or more roots in linear time (TL-B: serialized_boc#b5ee9c72, no index, no checksum)."""
    order = _topological(roots)
    index = {cell.hash: i for i, cell in enumerate(order)}
    width = max(1, (len(order).bit_length() + 7) // 8)
    payload = b"".join(
        cell._descriptors + cell._data_bytes + b"".join(index[ref.hash].to_bytes(width, "big") for ref in cell.refs)
        for cell in order
    )
    offset_width = max(1, (len(payload).bit_length() + 7) // 8)
    return b"".join(
        (
            _MAGIC,
            bytes([width, offset_width]),
            len(order).to_bytes(width, "big"),
            len(roots).to_bytes(width, "big"),
            bytes(width),
            len(payload).to_bytes(offset_width, "big"),
            *(index[root.hash].to_bytes(width, "big") for root in roots),
            payload,
        )
    )


def from_boc(data: bytes, most_bytes: int = MAX_BOC_BYTES) -> Cell:
    """Parse exactly one root.

    Raises CellError on anything that is not one well-formed bag of at most `most_bytes`, and MAX_CELLS cells.
    """
    if len(data) > most_bytes:
        raise CellError(f"bag of cells of {len(data)} bytes is over the limit of {most_bytes}")
    if data[:4] == _MAGIC and len(data) > 5 and int.from_bytes(data[6 : 6 + (data[4] & 7)], "big") > MAX_CELLS:
        raise CellError(f"a bag of more than {MAX_CELLS} cells")
    try:
        roots = Cell.from_boc(data)
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise CellError(f"not a bag of cells: {error}") from error
    if len(roots) != 1:
        raise CellError(f"expected one root cell, got {len(roots)}")
    return roots[0]


def cell_of(builder: Builder) -> Cell:
    return builder.end_cell()


def address_of(account: bytes) -> Address:
    """Workchain-0 address of a 32-byte account id."""
    if len(account) != 32:
        raise CellError(f"an account id has 32 bytes, got {len(account)}")
    return Address((0, account))


def account_of(address: Address | str) -> bytes:
    """32-byte account id of a workchain-0 address. Raises CellError for other workchains."""
    parsed = Address(address) if isinstance(address, str) else address
    if parsed.wc != 0:
        raise CellError(f"address {parsed.to_str()} is in workchain {parsed.wc}; Cocoon lives in workchain 0")
    return bytes(parsed.hash_part)


def open_tagged(cell: Cell, tag: IntEnum) -> Slice:
    """What follows the 32-bit `tag` that a signed structure begins with. Raises CellError for another tag."""
    slice_ = cell.begin_parse()
    if cell.type_ != -1 or len(cell.bits) < 32 or slice_.load_uint(32) != tag:
        raise CellError(f"not a {tag.name.lower()}: wrong tag")
    return slice_


def nothing_left(slice_: Slice, what: str) -> None:
    """Raises CellError when something follows what was read."""
    if slice_.remaining_bits or slice_.remaining_refs:
        raise CellError(f"{what} has {slice_.remaining_bits} bits and {slice_.remaining_refs} refs too many")


EMPTY = begin_cell().end_cell()
