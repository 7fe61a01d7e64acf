"""Dictionaries of accounts and keys: the same as the reference library reads, and bounded by what is visited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import MAX_ENTRIES, find, ids_cell, load_ids

IDS = st.binary(min_size=32, max_size=32)


def read(cell: Cell | None) -> dict[bytes, int]:
    return load_ids(begin_cell().store_maybe_ref(cell).end_cell().begin_parse(), lambda value: int(value.load_uint(32)))


def written(entries: dict[bytes, int]) -> Cell | None:
    return ids_cell(entries, lambda number: begin_cell().store_uint(number, 32))


@given(st.dictionaries(IDS, st.integers(0, 2**32 - 1), max_size=MAX_ENTRIES), IDS)
def test_one_value_is_found_without_the_others(entries: dict[bytes, int], absent: bytes) -> None:
    cell = written(entries)
    for key, value in entries.items():
        found = find(cell, 256, int.from_bytes(key, "big"))
        assert found is not None and found.load_uint(32) == value
    if absent not in entries:
        assert find(cell, 256, int.from_bytes(absent, "big")) is None


@given(st.dictionaries(IDS, st.integers(0, 2**32 - 1), max_size=MAX_ENTRIES))
def test_what_is_written_is_read(entries: dict[bytes, int]) -> None:
    cell = written(entries)
    assert read(cell) == entries
    if cell is not None:
        theirs = begin_cell().store_maybe_ref(cell).end_cell().begin_parse().load_dict(256)
        assert {key.to_bytes(32, "big"): value.load_uint(32) for key, value in theirs.items()} == entries


def test_keys_that_differ_in_one_bit_only() -> None:
    entries = {(1 << bit).to_bytes(32, "big"): bit for bit in range(0, 256, 5)} | {bytes(32): 999}
    assert read(written(entries)) == entries


def test_g18_forks_that_share_cells_are_refused_at_once() -> None:
    levels = 40
    rest = 256 - levels
    # hml_same$11 over what is left of the key, then hml_short$0 with an empty label at every fork
    cell = begin_cell().store_uint(0b110, 3).store_uint(rest, rest.bit_length()).store_uint(7, 32).end_cell()
    for _ in range(levels):
        cell = begin_cell().store_uint(0, 2).store_ref(cell).store_ref(cell).end_cell()
    with pytest.raises(CellError, match="more than"):
        read(cell)


def test_more_entries_than_any_contract_keeps_are_refused() -> None:
    entries = {number.to_bytes(32, "big"): number for number in range(MAX_ENTRIES + 1)}
    with pytest.raises(CellError, match="more than"):
        read(written(entries))
