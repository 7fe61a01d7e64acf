"""Hash maps keyed by 256-bit ids (`HashmapE 256 X`), as plain dictionaries from 32-byte keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from pytoniq_core import Builder, Cell, HashMap, Slice, begin_cell

from wrappers.cells import CellError

T = TypeVar("T")
KEY_BITS = 256
MAX_ENTRIES = 64
"""Twice what a contract of ours keeps at most in a dictionary that it bounds. One that no code bounds needs its own."""


def load_ids(slice_: Slice, read: Callable[[Slice], T], most: int = MAX_ENTRIES) -> dict[bytes, T]:
    """Load `HashmapE 256 X`; `read` consumes one value. Raises CellError over `most` entries.

    Bounded by what it visits: forks that share cells describe 2^n entries in a few hundred bytes.
    """
    root = slice_.load_maybe_ref()
    entries: dict[bytes, T] = {}
    edges: list[tuple[Cell, str]] = [(root, "")] if root is not None else []
    visited = 0
    while edges:
        cell, prefix = edges.pop()
        visited += 1
        if visited > 2 * most or cell.type_ != -1:
            raise CellError(f"a dictionary of more than {most} entries, or one with parts left out")
        edge = cell.begin_parse()
        key = prefix + _label(edge, KEY_BITS - len(prefix))
        if len(key) == KEY_BITS:
            entries[int(key, 2).to_bytes(KEY_BITS // 8, "big")] = read(edge)
            continue
        left, right = edge.load_ref(), edge.load_ref()
        edges += [(right, key + "1"), (left, key + "0")]
    return entries


def _label(edge: Slice, longest: int) -> str:
    """`HmLabel ~l longest` (hml_short$0, hml_long$10, hml_same$11) as a string of bits."""
    width = longest.bit_length()
    if not edge.load_bit():
        length = 0
        while edge.load_bit():
            length += 1
        bits = _bits(edge, length, longest)
    elif not edge.load_bit():
        bits = _bits(edge, edge.load_uint(width) if width else 0, longest)
    else:
        bit = "1" if edge.load_bit() else "0"
        bits = bit * (edge.load_uint(width) if width else 0)
    if len(bits) > longest:
        raise CellError("a dictionary label longer than its key")
    return bits


def _bits(edge: Slice, length: int, longest: int) -> str:
    if length > longest:
        raise CellError("a dictionary label longer than its key")
    return format(edge.load_uint(length), f"0{length}b") if length else ""


def ids_cell(entries: Mapping[bytes, T], write: Callable[[T], Builder]) -> Cell | None:
    """The dictionary cell of `HashmapE 256 X`, None when empty; `write` gives one value's builder."""
    map_ = HashMap(256, value_serializer=lambda value, builder: builder.store_cell(write(value).end_cell()))
    for key, value in entries.items():
        map_.set_int_key(int.from_bytes(key, "big"), value)
    cell: Cell | None = map_.serialize()
    return cell


def find(root: Cell | None, bits: int, key: int) -> Slice | None:
    """The value of one key of a `HashmapE bits X` whose root this is. Visits one cell per level, however many entries
    there are. Raises CellError on a part that was left out."""
    wanted = format(key, f"0{bits}b")
    cell = root
    while cell is not None:
        if cell.type_ != -1:
            raise CellError("a dictionary with parts left out")
        edge = cell.begin_parse()
        label = _label(edge, len(wanted))
        if not wanted.startswith(label):
            return None
        wanted = wanted[len(label) :]
        if not wanted:
            return edge
        branch, wanted = wanted[0] == "1", wanted[1:]
        left, right = edge.load_ref(), edge.load_ref()
        cell = right if branch else left
    return None


class Ids(Mapping[bytes, T]):
    """A `HashmapE 256 X` that no code bounds: one key costs its path, and only who asks for all of it walks it."""

    __slots__ = ("_most", "_read", "root")

    def __init__(self, root: Cell | None, read: Callable[[Slice], T], most: int) -> None:
        self.root, self._read, self._most = root, read, most

    def __getitem__(self, key: bytes) -> T:
        found = find(self.root, KEY_BITS, int.from_bytes(key, "big"))
        if found is None:
            raise KeyError(key)
        return self._read(found)

    def _all(self) -> dict[bytes, T]:
        return load_ids(begin_cell().store_maybe_ref(self.root).end_cell().begin_parse(), self._read, self._most)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == dict(other) if isinstance(other, Mapping) else NotImplemented
