"""Hash maps keyed by 256-bit ids (`HashmapE 256 X`), as plain dictionaries from 32-byte keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pytoniq_core import Builder, Cell, HashMap, Slice

T = TypeVar("T")


def load_ids(slice_: Slice, read: Callable[[Slice], T]) -> dict[bytes, T]:
    """Load `HashmapE 256 X`; `read` consumes one value."""
    entries = slice_.load_dict(256) or {}
    return {key.to_bytes(32, "big"): read(value) for key, value in entries.items()}


def ids_cell(entries: Mapping[bytes, T], write: Callable[[T], Builder]) -> Cell | None:
    """The dictionary cell of `HashmapE 256 X`, None when empty; `write` gives one value's builder."""
    map_ = HashMap(256, value_serializer=lambda value, builder: builder.store_cell(write(value).end_cell()))
    for key, value in entries.items():
        map_.set_int_key(int.from_bytes(key, "big"), value)
    cell: Cell | None = map_.serialize()
    return cell
