"""Shares of a row: the client chooses them, the node's pay is what they are taken from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from desk_house import House, request

from protocol.errors import Code
from worker.agent.desk import Desk
from wrappers.rows import Fee, Shares

HIMSELF, TREASURY = b"\x0c" * 32, b"\x0d" * 32


@pytest.mark.parametrize(
    ("shares", "max_share", "served"),
    [
        (Shares(3000, 0, HIMSELF), 0, False),
        (Shares(0, 1, royalty=HIMSELF), 0, False),
        (Shares(600, 401, HIMSELF, HIMSELF), 1000, False),
        (Shares(600, 400, HIMSELF, HIMSELF), 1000, True),
        (Shares(fee=Fee(500, TREASURY)), 0, True),
    ],
    ids=["himself", "royalty", "both", "allowed", "network"],
)
async def test_g5_no_row_is_served_that_gives_away_more_of_a_nodes_pay_than_its_operator_allows(
    tmp_path: Path, shares: Shares, max_share: int, served: bool
) -> None:
    """The relayer that a client names may be himself: his share would be a discount that nobody agreed to."""
    house = House(tmp_path / "store")
    house.view.row = replace(house.view.row, terms=replace(house.view.row.terms, shares=shares))
    house.desk = Desk(
        house.journal,
        house.view,  # type: ignore[arg-type]
        max_in_flight=2,
        min_close_timer=3600,
        clock=lambda: 1_790_000_000,
        max_share=max_share,
    )
    house.desk.enclave_came(house.enclave)  # type: ignore[arg-type]
    sink, _ = await house.begin(request())
    if served:
        assert not sink.ended and len(house.enclave.posts()) == 1
    else:
        assert sink.error is Code.ALLOTMENT_UNKNOWN and not house.enclave.posts()
    await house.journal.close()
