"""Asks for a release that cross each other: what is served after one was signed is not paid."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import desk_house as desk
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Code
from protocol.link_messages import ReleaseRequest
from worker.agent.questions import Refusal
from worker.agent.releases import Releases

NOW = 1_790_000_000


@pytest.fixture
async def house(tmp_path: Path):
    house = desk.House(tmp_path / "r.db")
    yield house
    await house.desk.close()
    await house.journal.close()


def ask(allotted: int) -> ReleaseRequest:
    return ReleaseRequest.sign(
        desk.CLIENT,
        network=desk.NETWORK,
        escrow=desk.ESCROW,
        node=desk.NODE,
        allotment=desk.ALLOTMENT,
        row_seqno=2,
        allotted_nano=allotted,
        expires_at=NOW + 60,
    )


class AnyKey:
    def holding(self, public: bytes) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.generate()


class SlowDisk:
    """The house's journal, whose writes wait for `gate`."""

    def __init__(self, journal) -> None:
        self.journal, self.gate, self.writing = journal, asyncio.Event(), asyncio.Event()

    async def read(self, read):
        return await self.journal.read(read)

    async def write(self, write) -> None:
        self.writing.set()
        await self.gate.wait()
        await self.journal.write(write)


async def test_g4_a_refused_ask_lets_nothing_in_under_a_row_that_is_being_released(house) -> None:
    async def head():
        return SimpleNamespace(now=NOW)

    async def claim() -> None:
        raise AssertionError("nothing is owed")

    house.view.head = head
    disk = SlowDisk(house.journal)
    releases = Releases(disk, house.view, house.desk, AnyKey(), claim)
    signing = asyncio.create_task(releases.sign(ask(0)))
    await asyncio.wait_for(disk.writing.wait(), 5)
    refused = asyncio.create_task(releases.sign(ask(5000)))  # over what is allotted
    await asyncio.wait({refused}, timeout=0.3)
    sink, _ = await house.begin(desk.request())
    assert sink.ended and sink.error is Code.ALLOTMENT_CLOSING, "served under a row whose release is on its way"
    disk.gate.set()
    assert (await signing)[0] == 0
    try:
        assert (await refused)[0] == 0, "the release that was signed for this state of the row"
    except Refusal as refusal:
        assert refusal.reason.code
    late, _ = await house.begin(desk.request(2))
    assert late.error is Code.ALLOTMENT_CLOSING
