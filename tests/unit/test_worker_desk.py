"""The desk between relayers and the enclave: one run per request id, the disk before the last frame."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from desk_house import ALLOTMENT, DATA, HEAD, LAST, RELEASE_KEY, House, Sink, issued, request

from protocol.errors import Code
from worker.agent.store import SignedRelease
from worker.messages import Answer, Cancel, Stored
from wrappers.rows import Row, RowTerms


@pytest.fixture
async def house(tmp_path: Path):
    house = House(tmp_path / "r.db")
    yield house
    await house.desk.close()
    await house.journal.close()


async def test_g4_the_same_request_posted_at_once_runs_once(house: House) -> None:
    sinks = await asyncio.gather(*(house.begin(request()) for _ in range(5)))
    assert len(house.enclave.posts()) == 1 and house.desk.in_flight == 1
    house.desk.on_answer(Answer(request().request_id, False, HEAD))
    late, _ = await house.begin(request())
    house.desk.on_answer(Answer(request().request_id, False, DATA))
    assert {sink.frames for sink, _ in sinks} == {HEAD + DATA} == {late.frames}


async def test_g16_the_enclave_hears_of_the_disk_only_after_it(house: House) -> None:
    sink, _ = await house.begin(request())
    house.desk.on_answer(Answer(request().request_id, False, HEAD + DATA))
    house.desk.on_issued(issued(request()))
    assert not any(isinstance(one, Stored) for one in house.enclave.posted) and sink.frames == HEAD + DATA
    await house.stored()
    known = await house.journal.read(lambda store: store.request(request().request_id))
    assert known is not None and known.frames == sink.frames == HEAD + DATA + issued(request()).frame
    house.desk.on_answer(Answer(request().request_id, True, LAST))
    early, _ = await house.begin(request())  # before the last frame is on disk
    await house.desk.close()
    late, _ = await house.begin(request())
    assert early.frames == late.frames == sink.frames and late.ended and house.desk.in_flight == 0


async def test_a_draining_or_pausing_desk_begins_nothing_and_repeats_what_it_has(house: House) -> None:
    running, _ = await house.begin(request(1))
    house.view.draining = True
    turned, _ = await house.begin(request(2))
    assert turned.error is Code.NODE_DRAINING and not running.ended
    house.view.draining, house.desk.paused = False, True
    turned, _ = await house.begin(request(3))
    assert turned.error is Code.NODE_BUSY and b"replaced" in turned.frames
    joined, _ = await house.begin(request(1))
    idle = asyncio.create_task(house.desk.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    house.desk.on_issued(issued(request(1)))
    await house.stored()
    house.desk.on_answer(Answer(request(1).request_id, True, LAST))
    async with asyncio.timeout(5):
        await idle
    assert joined.ended and running.ended


async def test_g16_an_enclave_that_dies_leaves_errors_and_receipts(house: House) -> None:
    receipted, _ = await house.begin(request(1))
    house.desk.on_issued(issued(request(1)))
    await house.stored()
    bare, _ = await house.begin(request(2))
    house.desk.enclave_gone()
    assert bare.error is Code.NODE_GONE and receipted.ended
    again, _ = await house.begin(request(1))
    assert again.error is Code.ALREADY_OPENED and b"receipt 1 of allotment" in again.frames
    other, _ = await house.begin(request(2))
    assert other.error is Code.NODE_NOT_LIVE
    assert (await house.journal.read(lambda store: store.totals())).receipts == 1


async def test_a_receipt_that_cannot_be_stored_is_not_answered(house: House) -> None:
    await house.begin(request(1))
    house.desk.on_issued(issued(request(1)))
    await house.stored()
    sink, _ = await house.begin(request(2))
    house.desk.on_issued(issued(request(2)))  # the same seq again: the store refuses
    async with asyncio.timeout(5):
        while not sink.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert sink.error is Code.INTERNAL
    house.desk.on_answer(Answer(request(2).request_id, True, LAST))  # finds nobody


async def test_g18_a_receipt_that_is_none_leaves_nobody_waiting(house: House) -> None:
    sink, _ = await house.begin(request())
    house.desk.on_issued(replace(issued(request()), frame=b"no receipt"))
    await house.stored()
    assert sink.error is Code.INTERNAL


async def test_cancelling_waits_for_the_last_listener(house: House) -> None:
    first, answering = await house.begin(request())
    second, _ = await house.begin(request())
    answering.cancel(first)
    assert not any(isinstance(one, Cancel) for one in house.enclave.posted)
    answering.cancel(second)
    assert any(isinstance(one, Cancel) for one in house.enclave.posted)


async def test_a_refusal_is_read_from_the_chain_anew(house: House) -> None:
    house.view.row = Row(17, 100, 0, 2, 0, RowTerms(RELEASE_KEY, 7200), allotment=ALLOTMENT)
    sink, _ = await house.begin(request())
    assert sink.error is Code.ALLOTMENT_TOO_LOW and house.view.reads == 2


async def test_g17_an_unreadable_chain_is_no_refusal_of_the_client(house: House) -> None:
    house.view.down = True
    sink, _ = await house.begin(request())
    assert sink.error is Code.CHAIN_UNCERTAIN


async def test_nothing_runs_under_a_released_row_until_it_moves(house: House) -> None:
    house.desk.hold(ALLOTMENT)
    assert (await house.begin(request(1)))[0].error is Code.ALLOTMENT_CLOSING
    house.desk.unhold(ALLOTMENT)
    await house.journal.write(lambda store: store.add_release(ALLOTMENT, 2, SignedRelease(10, bytes(64))))
    assert (await house.begin(request(2)))[0].error is Code.ALLOTMENT_CLOSING
    house.view.row = Row(17, 1000, 0, 3, 0, RowTerms(RELEASE_KEY, 7200), allotment=ALLOTMENT)
    assert not (await house.begin(request(3)))[0].ended and house.desk.runs_under(ALLOTMENT)


async def test_a_full_desk_and_junk_are_told_so(house: House) -> None:
    await house.begin(request(1))
    await house.begin(request(2))
    assert (await house.begin(request(3)))[0].error is Code.NODE_BUSY
    sink = Sink()
    assert await house.desk.answer(b"junk", sink) is None
    assert sink.error is Code.BAD_REQUEST
