"""Strict fixed-layout binary fields: big-endian, no options, nothing left over."""

from __future__ import annotations

from protocol.errors import Malformed, OurFault


def uint(value: int, bits: int, what: str) -> bytes:
    """`value` as unsigned big-endian of `bits` bits. Raises OurFault when it does not fit."""
    if not 0 <= value < 1 << bits:
        raise OurFault(f"{what} {value} does not fit {bits} bits", "keep it in range")
    return value.to_bytes(bits // 8, "big")


def fixed(value: bytes, size: int, what: str) -> bytes:
    """`value` if it has exactly `size` bytes, else OurFault."""
    if len(value) != size:
        raise OurFault(f"{what} has {len(value)} bytes", f"give exactly {size}")
    return value


class Reader:
    """Cursor over bytes from outside. Every read raises Malformed when the bytes run out."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed(f"{self._what} ends after {len(self._data)} bytes, needs {end} or more")
        part = self._data[self._at : end]
        self._at = end
        return part

    def uint(self, bits: int) -> int:
        return int.from_bytes(self.take(bits // 8), "big")

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def zeros(self) -> None:
        """The rest is padding: anything but zeros is a second channel and refused."""
        if any(self.take(self.left)):
            raise Malformed(f"{self._what} has a padding that is not zero")

    def end(self) -> None:
        if self.left:
            raise Malformed(f"{self._what} has {self.left} bytes too many")
