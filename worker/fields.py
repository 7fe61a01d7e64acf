"""Fields and records of the messages between enclave and agent: bounded, and read to the last byte.

Unsigned integers big-endian, fixed byte strings bare, others after a u32 length, tuples after a u16 count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_ITEMS = 1024


class LinkError(Exception):
    """The other process said something that is not in this protocol. Cure: enclave and agent of one release."""


class Reader:
    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise LinkError(f"message ends {end - len(self._data)} bytes early")
        part = self._data[self._at : end]
        self._at = end
        return part

    def end(self) -> None:
        if self._at != len(self._data):
            raise LinkError(f"message has {len(self._data) - self._at} bytes too many")


@dataclass(frozen=True, slots=True)
class Field:
    write: Callable[[Any], bytes]
    read: Callable[[Reader], Any]


def uint(width: int) -> Field:
    def write(value: int) -> bytes:
        try:
            return value.to_bytes(width, "big")
        except OverflowError as error:
            raise LinkError(f"{value} does not fit {8 * width} bits") from error

    return Field(write, lambda r: int.from_bytes(r.take(width), "big"))


def fixed(width: int) -> Field:
    def write(value: bytes) -> bytes:
        if len(value) != width:
            raise LinkError(f"expected {width} bytes, got {len(value)}")
        return value

    return Field(write, lambda r: r.take(width))


def _read_bytes(reader: Reader) -> bytes:
    return reader.take(int.from_bytes(reader.take(4), "big"))


def _read_text(reader: Reader) -> str:
    try:
        return _read_bytes(reader).decode()
    except UnicodeDecodeError as error:
        raise LinkError(f"text is not UTF-8: {error}") from error


U8, U16, U32, U64 = uint(1), uint(2), uint(4), uint(8)
B32, B64 = fixed(32), fixed(64)
BYTES = Field(lambda v: len(v).to_bytes(4, "big") + v, _read_bytes)
TEXT = Field(lambda v: BYTES.write(v.encode()), _read_text)
FLAG = Field(lambda v: b"\x01" if v else b"\x00", lambda r: bool(U8.read(r)))


def many(item: type[Record]) -> Field:
    def write(values: tuple[Record, ...]) -> bytes:
        if len(values) > MAX_ITEMS:
            raise LinkError(f"{len(values)} items, at most {MAX_ITEMS}")
        return len(values).to_bytes(2, "big") + b"".join(value.body() for value in values)

    def read(reader: Reader) -> tuple[Record, ...]:
        count = int.from_bytes(reader.take(2), "big")
        if count > MAX_ITEMS:
            raise LinkError(f"{count} items, at most {MAX_ITEMS}")
        return tuple(item.read(reader) for _ in range(count))

    return Field(write, read)


class Record:
    __slots__ = ()
    LAYOUT: ClassVar[tuple[Field, ...]]

    def body(self) -> bytes:
        # The slots of a slotted dataclass are its fields, in order.
        names: tuple[str, ...] = self.__slots__
        return b"".join(codec.write(getattr(self, name)) for name, codec in zip(names, self.LAYOUT, strict=True))

    @classmethod
    def read(cls, reader: Reader) -> Any:
        return cls(*(codec.read(reader) for codec in cls.LAYOUT))


class Message(Record):
    """One message of the link; `KIND` is its number on the wire."""

    __slots__ = ()
    KIND: ClassVar[int]
