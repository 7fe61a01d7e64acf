"""Account states beyond what a message may hold: the verifier's grows with every machine."""

from __future__ import annotations

import base64

import pytest
from pytoniq_core import Cell, begin_cell

from chain.toncenter import Toncenter
from wrappers.cells import EMPTY, MAX_BOC_BYTES, MAX_CELLS, CellError, from_boc, to_boc


def large(cells: int) -> Cell:
    """A heap of `cells` cells with 126 bytes each."""
    made = [begin_cell().store_bytes(number.to_bytes(126, "big")) for number in range(cells)]
    for number in range(cells - 1, 0, -1):
        made[(number - 1) // 4].store_ref(made[number].end_cell())
    return made[0].end_cell()


async def test_g17_a_state_above_a_mebibyte_is_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    state = large(8_500)
    data = to_boc(state)
    assert len(data) > MAX_BOC_BYTES
    answer = {
        "last_transaction_id": {"lt": "5", "hash": base64.b64encode(b"\x01" * 32).decode()},
        "balance": "7",
        "state": "active",
        "code": base64.b64encode(to_boc(EMPTY)).decode(),
        "data": base64.b64encode(data).decode(),
    }

    async def get(method: str, query: dict[str, str]) -> object:
        return answer

    chain = Toncenter("http://127.0.0.1:1")
    monkeypatch.setattr(chain, "_get", get)
    found = (await chain.account(b"\x02" * 32)).data
    assert found is not None and found.hash == state.hash
    with pytest.raises(CellError, match="over the limit"):
        from_boc(data)


def test_g18_a_bag_that_names_more_cells_than_an_account_may_hold_is_refused_unread() -> None:
    data = bytearray(to_boc(large(300)))
    width = data[4] & 7
    assert width == 2
    head = bytes([*data[:4], 3, data[5], *(MAX_CELLS + 1).to_bytes(3, "big")])
    with pytest.raises(CellError, match="more than"):
        from_boc(head + bytes(data[8:]))
