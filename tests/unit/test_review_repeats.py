"""The same request again, at the worst moments: it must cost nobody else anything."""

import asyncio
from pathlib import Path

import desk_house as desk
import enclave_house as enclave
import pytest

from protocol.errors import Code
from protocol.frames import FrameType
from worker.messages import Answer, Stored


@pytest.fixture
async def session():
    house = await enclave.House().start(enclave.ScriptedEngine())
    yield house
    await house.stop()


@pytest.fixture
async def house(tmp_path: Path):
    house = desk.House(tmp_path / "r.db")
    yield house
    await house.desk.close()
    await house.journal.close()


async def test_a_repeat_while_the_last_frame_is_on_its_way_does_not_end_the_enclave(session) -> None:
    link, open_ = session.enclave_link, asyncio.Event()

    async def congested(message) -> None:
        link.post(message)
        if isinstance(message, Answer) and message.ends:
            await open_.wait()

    link.send = congested
    client = enclave.Client(session)
    _, request = client.sealed()
    first = await session.post(request, client.voucher_key)
    again = await session.post(request, client.voucher_key)
    assert not session.session.done()
    assert first.issued is not None and again.frames[0] == FrameType.ERROR
    open_.set()
    _, last = await client.ask(cap=10_000)
    assert last.signed.receipt.seq == 2


async def test_g16_a_request_whose_receipt_could_not_be_stored_is_not_posted_twice(house) -> None:
    await house.begin(desk.request(1))
    house.desk.on_issued(desk.issued(desk.request(1)))
    await house.stored()
    house.enclave.posted.clear()
    sink, _ = await house.begin(desk.request(2))
    house.desk.on_issued(desk.issued(desk.request(2)))  # the same seq again: the store refuses
    async with asyncio.timeout(5):
        while not any(isinstance(one, Stored) for one in house.enclave.posted):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    again, _ = await house.begin(desk.request(2))
    assert sink.error is again.error is Code.INTERNAL
    assert len(house.enclave.posts()) == 1, "the enclave still has it: a second post would end it"
    house.desk.on_answer(Answer(desk.request(2).request_id, True, desk.LAST))
    await house.begin(desk.request(2))
    assert len(house.enclave.posts()) == 2


class Pieces(desk.Sink):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        self.sizes.append(len(frames))
        super().send(frames, ends=ends, receipt=receipt)


async def test_a_long_stored_answer_is_repeated_in_messages_that_no_relayer_closes_the_link_for(
    house, monkeypatch
) -> None:
    """5 MiB in one message would be over the link's 4 MiB: all answers of all clients on it would break."""
    monkeypatch.setattr("worker.agent.desk.PIECE_SECONDS", 0.0)
    data = desk.Frame(FrameType.DATA, bytes(50_000)).to_bytes()
    first, _ = await house.begin(desk.request())
    house.desk.on_answer(Answer(desk.request().request_id, False, desk.HEAD))
    for _ in range(105):
        house.desk.on_answer(Answer(desk.request().request_id, False, data))
    joining = Pieces()
    await house.desk.answer(desk.request().to_bytes(), joining)
    assert joining.error is Code.NODE_BUSY, "what came so far would fill the link's queue at once"
    house.desk.on_issued(desk.issued(desk.request()))
    await house.stored()
    house.desk.on_answer(Answer(desk.request().request_id, True, desk.LAST))
    async with asyncio.timeout(5):
        while house.desk.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    again = Pieces()
    await house.desk.answer(desk.request().to_bytes(), again)
    async with asyncio.timeout(5):
        while not again.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert again.frames == first.frames and len(again.frames) > 5 << 20
    assert max(again.sizes) < 1 << 20
