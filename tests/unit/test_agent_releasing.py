"""A request and an ask for a release that cross each other: whatever is served under a released row is not paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from desk_house import ALLOTMENT, House, request

from protocol.errors import Code
from worker.agent.store import SignedRelease

SIGNED = SignedRelease(0, bytes(64))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "store")
    yield made
    await made.desk.close()
    await made.journal.close()


class Crossing:
    """The house's journal. Between what the gate reads and what it does, a release is made, or one begun before."""

    def __init__(self, house: House, *, begun: bool) -> None:
        self._house, self._journal, self._begun = house, house.journal, begun
        if begun:
            house.desk.hold(ALLOTMENT)

    def __getattr__(self, name: str):
        return getattr(self._journal, name)

    async def check(self) -> None:
        if not self._begun:
            self._house.desk.hold(ALLOTMENT)
        await self._journal.write(lambda store: store.add_release(ALLOTMENT, 2, SIGNED))
        self._house.desk.unhold(ALLOTMENT)
        await self._journal.check()


@pytest.mark.parametrize("begun", [True, False], ids=["begun before", "begun and signed since"])
async def test_g4_no_request_is_served_that_came_while_a_release_was_made(house: House, begun: bool) -> None:
    house.desk._journal = Crossing(house, begun=begun)  # type: ignore[assignment]
    sink, _ = await house.begin(request())
    assert sink.error is Code.ALLOTMENT_CLOSING and not house.enclave.posts()


async def test_requests_under_other_rows_go_on_while_a_release_is_made(house: House) -> None:
    house.desk.hold(b"\x01" * 32)
    sinks = await asyncio.gather(*(house.begin(request(number)) for number in (1, 2)))
    assert not any(sink.ended for sink, _ in sinks) and len(house.enclave.posts()) == 2


@pytest.mark.parametrize(("row_seqno", "served"), [(1, False), (2, False), (3, True)])
async def test_g4_a_row_that_is_shown_as_it_was_before_its_release_is_released(
    house: House, row_seqno: int, served: bool
) -> None:
    """Endpoints may fall back to an older state together: the release was signed for what they showed before."""
    await house.journal.write(lambda store: store.add_release(ALLOTMENT, 2, SIGNED))
    house.view.row = replace(house.view.row, seqno=row_seqno)
    sink, _ = await house.begin(request())
    if served:
        assert not sink.ended
    else:
        assert sink.error is Code.ALLOTMENT_CLOSING and not house.enclave.posts()
