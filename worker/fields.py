"""Fields and records of the messages between enclave and agent: bounded, and read to the last byte.

Unsigned integers big-endian, fixed byte strings bare, others after a u32 length, tuples after a u16 count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

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


_U8, _BYTES = uint(1), Field(lambda v: len(v).to_bytes(4, "big") + v, _read_bytes)

# What a record's fields are annotated with: the type that Python sees, and how it travels.
U32 = Annotated[int, uint(4)]
U64 = Annotated[int, uint(8)]
B32 = Annotated[bytes, fixed(32)]
B64 = Annotated[bytes, fixed(64)]
Blob = Annotated[bytes, _BYTES]
Text = Annotated[str, Field(lambda v: _BYTES.write(v.encode()), _read_text)]
Flag = Annotated[bool, Field(lambda v: b"\x01" if v else b"\x00", lambda r: bool(_U8.read(r)))]


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
    """A frozen, slotted dataclass whose fields are annotated with the forms above, or `tuple[OfARecord, ...]`."""

    __slots__ = ()
    FORMS: ClassVar[tuple[tuple[str, Field], ...]]
    """The fields in order, each with its form on the wire."""

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        cls.FORMS = tuple((name, _form(hint)) for name, hint in hints.items() if get_origin(hint) is not ClassVar)

    def body(self) -> bytes:
        return b"".join(form.write(getattr(self, name)) for name, form in self.FORMS)

    @classmethod
    def read(cls, reader: Reader) -> Any:
        return cls(*(form.read(reader) for _, form in cls.FORMS))


class Message(Record):
    """One message of the link; `KIND` is its number on the wire."""

    __slots__ = ()
    KIND: ClassVar[int]


def _form(hint: Any) -> Field:
    if get_origin(hint) is tuple:
        return many(get_args(hint)[0])
    form: Field = get_args(hint)[1]
    return form
