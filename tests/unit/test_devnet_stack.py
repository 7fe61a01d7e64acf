"""TVM stacks in toncenter's form, against the package that toncenter's own servers render them with."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell
from tvm_valuetypes import serialize_tvm_stack

from devnet import render
from wrappers.cells import to_boc

INTEGERS = st.integers(-(2**256), 2**256 - 1)
CELLS = st.binary(max_size=100).map(lambda data: begin_cell().store_bytes(data).end_cell())


def element(value: int | Cell) -> dict[str, Any]:
    """What a TVM answer looks like inside toncenter, before its servers render it."""
    if isinstance(value, int):
        return {"@type": "tvm.stackEntryNumber", "number": {"@type": "tvm.numberDecimal", "number": str(value)}}
    cell = {"@type": "tvm.cell", "bytes": base64.b64encode(to_boc(value)).decode()}
    return {"@type": "tvm.stackEntryCell", "cell": cell}


@given(st.lists(INTEGERS | CELLS, max_size=8))
def test_stacks_read_as_toncenter_renders_them(values: list[int | Cell]) -> None:
    theirs = serialize_tvm_stack([element(value) for value in values])
    ours = render.stack(values)
    assert [entry[0] for entry in ours] == [entry[0] for entry in theirs]
    for value, (kind, rendered), (_, expected) in zip(values, ours, theirs, strict=True):
        if kind == "num":
            assert rendered == expected
        else:
            assert Cell.one_from_boc(rendered["bytes"]).hash == Cell.one_from_boc(expected["bytes"]).hash == value.hash
    assert [value if isinstance(value, int) else value.hash for value in render.read_stack(ours)] == [
        value if isinstance(value, int) else value.hash for value in values
    ]
