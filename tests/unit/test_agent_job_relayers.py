"""Relayers that take their time: what the node accepted is run and posted whatever they do."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from tests.unit.test_agent_jobs import (
    DIGEST,
    JOB,
    OURS,
    RESULT,
    FakeEnclave,
    JobPolicy,
    Place,
    Relay,
    record,
    state,
)
from worker.agent.job_records import JobRecords, Stage
from worker.agent.jobs import JobDesk

OTHER = b"o" * 32


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.agent.jobs.RELAYER_SECONDS", 0.01)


class Dripping(Relay):
    """Gives one byte, takes one byte, lists nothing: each time after a while, and never enough."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def entries(self):
        await asyncio.Event().wait()

    async def input_piece(self, job: bytes, offset: int) -> bytes:
        self.asked += 1
        await asyncio.Event().wait()
        return b""

    async def put_result(self, job: bytes, data: bytes, digest: bytes) -> None:
        await asyncio.Event().wait()


def desk_of(place: Place, relay: Relay) -> JobRecords:
    records = JobRecords(place.folder / "jobs")
    place.enclave = FakeEnclave()
    policy = JobPolicy(max_job_nano=500, collect_nano=10)
    place.desk = JobDesk(records, place.chain, place.chain, [relay], policy, lambda: place.enclave)
    place.enclave.desk = place.desk
    return records


async def test_g3_a_relayer_that_drips_one_job_does_not_keep_another_from_being_posted(tmp_path: Path) -> None:
    """The other would be missed, and the stake pay for it: its client needs no more than a relayer of his own."""
    place, relay = Place(tmp_path), Dripping()
    place.chain.state = state(accepted=OURS)
    records = desk_of(place, relay)
    records.put(record(Stage.FETCHING, job=OTHER, epoch=0))
    records.put(record(Stage.FINISHED))
    shown = {JOB: place.chain.state, OTHER: state()}

    async def job(account: bytes):
        return shown[account]

    place.chain.job = job
    async with asyncio.timeout(2):
        await place.desk.step()
    assert place.sent == [JOB] and relay.asked == 1
    async with asyncio.timeout(2):
        await place.desk.step()
    assert relay.asked == 1, "the piece that is waited for is not asked for again"
    shown[OTHER] = state(accepted=(b"x" * 32, b"y" * 32))
    await place.desk.step()
    assert records.get(OTHER) is None, "nor does it keep a job that is over"
    await stopped(place)


async def test_g3_a_relayer_that_takes_no_result_keeps_no_other_from_its_pay(tmp_path: Path) -> None:
    place = Place(tmp_path)
    records = desk_of(place, Dripping())
    records.put(record(Stage.FINISHED, job=OTHER))
    records.put(record(Stage.FINISHED))
    for job in (OTHER, JOB):
        records.put_result(job, RESULT)
    posted = state(accepted=OURS, posted=DIGEST)
    shown = {OTHER: posted, JOB: state(accepted=OURS)}

    async def job(account: bytes):
        return shown[account]

    place.chain.job = job
    async with asyncio.timeout(2):
        await place.desk.step()
    assert place.sent == [JOB]
    await stopped(place)


async def test_g16_what_moves_beside_the_rounds_and_what_they_note_both_stay(tmp_path: Path) -> None:
    records = JobRecords(tmp_path / "jobs")
    records.put(record(Stage.FETCHING, epoch=0))
    changes = [{"epoch": 7}, {"stage": Stage.HELD}, {"delivered": True}, {"amount_nano": 3}]
    await asyncio.gather(*(asyncio.to_thread(records.change, JOB, **one) for one in changes))
    kept = dataclasses.replace(record(Stage.HELD), epoch=7, delivered=True, amount_nano=3)
    assert records.get(JOB) == kept and JobRecords(tmp_path / "jobs").get(JOB) == kept


async def stopped(place: Place) -> None:
    """Ending the desk ends what goes on with relayers."""
    work = asyncio.create_task(place.desk.run(60.0))
    await asyncio.sleep(0.05)
    work.cancel()
    async with asyncio.timeout(2):
        await asyncio.gather(work, return_exceptions=True)
    assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
