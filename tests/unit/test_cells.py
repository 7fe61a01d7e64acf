"""The bag-of-cells codec: same cells as the reference library, linear on shared cells, strict on foreign bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from wrappers.cells import CellError, account_of, address_of, from_boc, to_boc


@st.composite
def cells(draw: st.DrawFn, depth: int = 3) -> Cell:
    builder = begin_cell().store_bytes(draw(st.binary(max_size=32)))
    if depth:
        for ref in draw(st.lists(cells(depth=depth - 1), max_size=3)):
            builder.store_ref(ref)
    return builder.end_cell()


@given(cells())
def test_round_trip_and_agreement_with_the_reference_parser(cell: Cell) -> None:
    data = to_boc(cell)
    assert from_boc(data).hash == cell.hash
    assert Cell.one_from_boc(data).hash == cell.hash


def test_g18_shared_cells_are_serialized_once() -> None:
    cell = begin_cell().store_uint(1, 8).end_cell()
    for _ in range(200):
        cell = begin_cell().store_ref(cell).store_ref(cell).end_cell()
    started = time.monotonic()
    data = to_boc(cell)
    assert time.monotonic() - started < 5
    assert len(data) < 2_000


@given(cells(), st.data())
def test_g18_truncated_or_foreign_bytes_are_one_clear_error(cell: Cell, data: st.DataObject) -> None:
    boc = to_boc(cell)
    cut = data.draw(st.integers(0, len(boc) - 1))
    with pytest.raises(CellError):
        from_boc(boc[:cut])
    with pytest.raises(CellError):
        from_boc(data.draw(st.binary(max_size=64).filter(lambda b: not b.startswith(bytes.fromhex("b5ee9c72")))))


def test_several_roots_are_refused_where_one_is_expected() -> None:
    one, two = begin_cell().store_uint(1, 8).end_cell(), begin_cell().store_uint(2, 8).end_cell()
    with pytest.raises(CellError, match="one root"):
        from_boc(to_boc(one, two))


@given(st.binary(min_size=32, max_size=32))
def test_accounts_are_workchain_zero_ids(account: bytes) -> None:
    assert account_of(address_of(account)) == account
    with pytest.raises(CellError, match="workchain"):
        account_of("-1:" + account.hex())
