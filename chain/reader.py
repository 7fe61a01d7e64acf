"""A strict reader over one cell.

`pytoniq_core.Slice` deletes from a bit array on every load and its address parser refuses `addr_var`; a follower
decodes thousands of transactions a second from endpoints that it does not trust, so this one shifts an integer and
checks every border.
"""

from __future__ import annotations

from pytoniq_core import Cell

from chain.api import ChainError


class DecodeError(ChainError):
    """A cell is not what its TL-B schema says."""


class Reader:
    """Reads bits and references in order. Raises DecodeError at any border."""

    __slots__ = ("_bits", "_left", "_ref", "_refs", "_value")

    def __init__(self, cell: Cell) -> None:
        if cell.is_exotic:
            raise DecodeError("an ordinary cell was expected, got an exotic one; a pruned answer holds no data")
        self._bits = cell.bits
        self._left = len(self._bits)
        self._value = int.from_bytes(self._bits.tobytes(), "big") >> (-self._left % 8)
        self._refs: list[Cell] = cell.refs
        self._ref = 0

    @property
    def bits_left(self) -> int:
        return self._left

    @property
    def refs_left(self) -> int:
        return len(self._refs) - self._ref

    def uint(self, width: int) -> int:
        left = self._left - width
        if left < 0:
            raise DecodeError(f"the cell ends {-left} bits early")
        self._left = left
        return (self._value >> left) & ((1 << width) - 1)

    def sint(self, width: int) -> int:
        value = self.uint(width)
        return value - (1 << width) if value >> (width - 1) else value

    def bit(self) -> bool:
        return self.uint(1) == 1

    def octets(self, length: int) -> bytes:
        return self.uint(length * 8).to_bytes(length, "big")

    def var_uint(self, length_bits: int) -> int:
        """`VarUInteger n` with a length prefix of `length_bits` bits."""
        return self.uint(self.uint(length_bits) * 8)

    def coins(self) -> int:
        """`Grams`: nanoTON."""
        return self.var_uint(4)

    def maybe_coins(self) -> int | None:
        return self.coins() if self.bit() else None

    def currency(self) -> int:
        """`CurrencyCollection`: its nanoTON. Extra currencies are skipped: Cocoon's money is TON alone."""
        amount_nano = self.coins()
        if self.bit():
            self.ref()
        return amount_nano

    def ref(self) -> Cell:
        if self._ref >= len(self._refs):
            raise DecodeError("the cell has fewer references than its schema")
        self._ref += 1
        return self._refs[self._ref - 1]

    def maybe_ref(self) -> Cell | None:
        return self.ref() if self.bit() else None

    def rest(self) -> Cell:
        """Everything not read yet, as a cell of its own."""
        cell = Cell(self._bits[len(self._bits) - self._left :], self._refs[self._ref :])
        self._left = 0
        self._ref = len(self._refs)
        return cell
