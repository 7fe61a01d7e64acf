"""Cells that cross the emulator's border come back as what they were, whether they were seen or not."""

from __future__ import annotations

import base64

import pytest
from pytoniq_core import Cell, begin_cell
from tonpy.types import Cell as NativeCell

from devnet import native
from devnet.native import from_native, to_native
from wrappers.cells import to_boc


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_seen", {})
    monkeypatch.setattr(native, "_native", {})


def _exotic() -> Cell:
    hidden = begin_cell().store_uint(5, 100).end_cell()
    pruned = begin_cell().store_uint(0x0101, 16).store_bytes(hidden.hash).store_uint(0, 16).end_cell()
    branch = Cell(pruned.bits, [], 1)
    proof = begin_cell().store_uint(3, 8).store_bytes(hidden.hash).store_uint(0, 16).end_cell()
    return begin_cell().store_uint(1, 3).store_ref(Cell(proof.bits, [branch], 3)).end_cell()


def _shared(levels: int) -> Cell:
    cell = begin_cell().store_uint(1, 7).end_cell()
    for level in range(levels):
        cell = begin_cell().store_uint(level, 1 + level).store_ref(cell).store_ref(cell).end_cell()
    return cell


CELLS = {
    "empty": begin_cell().end_cell(),
    "one bit": begin_cell().store_uint(0, 1).end_cell(),
    "zeros to the byte": begin_cell().store_uint(0, 8).end_cell(),
    "full": begin_cell().store_bytes(bytes(range(127))).store_uint(0, 7).end_cell(),
    "full bytes": begin_cell().store_bytes(bytes(127)).end_cell(),
    "shared": _shared(60),
    "wide": begin_cell().store_ref(_shared(9)).store_ref(_shared(3)).store_ref(_shared(300)).end_cell(),
    "a proof": _exotic(),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_comes_back_as_it_went(name: str) -> None:
    cell = CELLS[name]
    back = from_native(NativeCell(base64.b64encode(to_boc(cell)).decode()))
    assert (back.hash, back.type_, len(back.refs)) == (cell.hash, cell.type_, len(cell.refs))
    assert back.bits == cell.bits and to_boc(back) == to_boc(cell)
    assert to_native(back).get_hash().lower() == cell.hash.hex()
    assert from_native(to_native(cell)) is back, "it was seen"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MAX_SEEN", 20)
    monkeypatch.setattr(native, "MAX_NATIVE", 3)
    for number in range(50):
        leaf = begin_cell().store_uint(number, 32).end_cell()
        cell = begin_cell().store_uint(number, 16).store_ref(leaf).end_cell()
        assert from_native(NativeCell(base64.b64encode(to_boc(cell)).decode())).hash == cell.hash
        assert to_native(cell).get_hash().lower() == cell.hash.hex()
        assert len(native._seen) <= 20 and len(native._native) <= 3


def test_a_bag_of_another_form_is_refused() -> None:
    data = to_boc(begin_cell().end_cell(), begin_cell().store_uint(1, 1).end_cell())
    with pytest.raises(ValueError, match="no bag of one root"):
        native._decoded(data)
