"""Batch jobs in the enclave, against a scripted engine: when it accepts, what it bills, and that each job runs once."""

import asyncio
import dataclasses
import hashlib
import json
import secrets
import threading
import time

import pytest

from protocol import jobs
from protocol.errors import Code
from protocol.job_lines import read_answers
from protocol.pricing import Stop, Usage, charge, maximum
from tests.unit.test_worker_enclave import EPOCH, NETWORK, NODE, NODE_ID, PROMPT, House, ScriptedEngine
from worker.job_messages import JobAccepted, JobBegin, JobDrop, JobFinished, JobInput, JobPiece, JobRefused, JobRun
from worker.messages import Failed
from wrappers.cells import to_boc
from wrappers.job import Outcome
from wrappers.receipts import Terms
from wrappers.signed import Acceptance, JobResult, job_id, verify

JOB, JOB_EPOCH = b"j" * 32, 77
SECRET = b"s" * 32


@pytest.fixture
async def house():
    house = await House().start(ScriptedEngine())
    yield house
    await house.stop()


def line(number: int, **body) -> dict:
    whole = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 10, **body}
    return {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": whole}


class Job:
    """A client's sealed job for this house's node."""

    def __init__(self, house: House, *lines: dict, **changes) -> None:
        self.house = house
        self.lines = lines or (line(1), line(2))
        self.maximum = changes.get("maximum", 10**9)
        terms = changes.get("terms", house.terms)
        raw = "\n".join(json.dumps(one) for one in self.lines).encode()
        opened = jobs.JobInput(SECRET, self.maximum, terms, changes.get("raw", raw))
        count, keys = changes.get("count", len(self.lines)), {NODE: house.sealing[0].public_key}
        self.sealed = jobs.seal_job(opened, lines=count, network=NETWORK, job=JOB, nodes=keys)
        self.id = job_id(NETWORK, JOB, JOB_EPOCH, self.sealed.spec.hash)

    def begin(self, **changes) -> JobBegin:
        begin = JobBegin(JOB, JOB_EPOCH, self.maximum, to_boc(self.sealed.spec.to_cell()), self.sealed.wraps)
        return dataclasses.replace(begin, **changes)

    def post(self, begin: JobBegin | None = None, data: bytes | None = None) -> None:
        self.house.agent.link.post(begin or self.begin())
        data = self.sealed.ciphertext if data is None else data
        for at in range(0, len(data), 1000):
            self.house.agent.link.post(JobInput(JOB, data[at : at + 1000]))

    async def refused(self, code: Code) -> JobRefused:
        refusal = await self.house.agent.expect(JobRefused)
        assert refusal.code == code and refusal.cause and refusal.cure and PROMPT not in refusal.cause
        return refusal

    async def run(self, seconds: float = 60) -> tuple[JobFinished, bytes]:
        self.house.agent.link.post(JobRun(JOB, int(time.time() + seconds)))
        return await self.finished()

    async def finished(self) -> tuple[JobFinished, bytes]:
        data = b""
        while True:
            async with asyncio.timeout(10):
                message = await self.house.agent.inbox.get()
            if isinstance(message, JobFinished):
                return message, data
            assert isinstance(message, JobPiece)
            data += message.data

    def read(self, finished: JobFinished, data: bytes) -> jobs.Result:
        result = JobResult(self.id, finished.result, finished.amount_nano, finished.inner)
        assert verify(result, finished.signature, self.house.ready.signing_key)
        outcome = Outcome(finished.result, finished.amount_nano, finished.inner, 0)
        return jobs.open_result(SECRET, self.id, self.sealed.spec, self.house.terms, outcome, data)

    def answers(self, result: jobs.Result):
        return read_answers(result.answers, [one["custom_id"] for one in self.lines])


async def test_a_job_is_accepted_run_and_priced_as_one_request(house: House) -> None:
    job = Job(house)
    job.post()
    accepted = await house.agent.expect(JobAccepted)
    assert verify(Acceptance(job.id, NODE_ID), accepted.signature, house.ready.signing_key)
    assert not house.engine.requests, "nothing runs before the acceptance is on chain"
    result = job.read(*await job.run())
    assert (result.usage, result.stop) == (Usage(20, 0, 6), Stop.END)
    assert [one.error for one in job.answers(result)] == [None, None]
    assert house.engine.requests[0]["max_tokens"] == 10 and "stream" not in house.engine.requests[0]
    assert len(set(house.engine.salts)) == 1 and house.engine.salts[0]


async def test_g5_a_job_over_the_maximum_is_not_accepted(house: House) -> None:
    size = len(PROMPT) + len("user") + len("role") + len("content") + 256 + 16
    worst = maximum(house.terms, 2 * size, 2 * 10)
    for told, own, accepts in ((worst, worst, True), (worst - 1, worst, False), (worst, worst - 1, False)):
        job = Job(house, maximum=own)
        job.post(job.begin(maximum_nano=told))
        if accepts:
            await house.agent.expect(JobAccepted)
            house.agent.link.post(JobDrop(JOB))
        else:
            await job.refused(Code.MAXIMUM_TOO_LOW)


async def test_what_an_engine_counts_beyond_its_bounds_is_the_operators_loss(house: House) -> None:
    house.engine.prompt_tokens = 900
    house.engine.words = ["w "] * 500
    house.engine.chat = overrun(house.engine.chat)
    job = Job(house)
    job.post()
    await house.agent.expect(JobAccepted)
    finished, data = await job.run()
    result = job.read(finished, data)
    assert result.usage.completion_tokens == 20
    assert finished.amount_nano <= job.maximum


def overrun(chat):
    def without_limit(request, *, cache_salt=""):
        return chat({key: value for key, value in request.items() if key != "max_tokens"}, cache_salt=cache_salt)

    return without_limit


async def test_g12_altered_input_is_not_accepted(house: House) -> None:
    job = Job(house)
    data = bytearray(job.sealed.ciphertext)
    data[5] ^= 1
    job.post(data=bytes(data))
    await job.refused(Code.NOT_OPENED)
    job.post(job.begin(wraps=job.sealed.wraps[:-1] + b"\0"))
    await job.refused(Code.NOT_OPENED)
    other = dataclasses.replace(job.sealed.spec, lines=3)
    job.post(job.begin(spec=to_boc(other.to_cell())))
    await job.refused(Code.NOT_OPENED)
    job.post()
    await house.agent.expect(JobAccepted)


async def test_a_job_for_other_terms_or_of_other_lines_is_refused(house: House) -> None:
    other = Terms(house.terms.model, 1, 1, 1, 1, 1)
    Job(house, terms=other).post()
    await Job(house).refused(Code.TERMS_REFUSED)
    Job(house, count=3).post()
    await Job(house).refused(Code.BAD_REQUEST)
    Job(house, raw=PROMPT.encode()).post()
    await Job(house).refused(Code.NOT_OPENED)
    job = Job(house)
    job.post(job.begin(spec=b"no cell"))
    await job.refused(Code.BAD_REQUEST)


async def test_lines_that_cannot_run_are_errors_of_their_own(house: House) -> None:
    bad = line(2, messages="no list")
    wrong = {**line(3), "url": "/v1/completions"}
    job = Job(house, line(1), bad, wrong)
    job.post()
    await house.agent.expect(JobAccepted)
    result = job.read(*await job.run())
    good, *errors = job.answers(result)
    assert good.error is None and [one.error["code"] for one in errors] == ["bad-request"] * 2
    assert result.usage == Usage(10, 0, 3)


async def test_a_job_of_errors_alone_costs_the_minimum_and_a_broken_engine_nothing(house: House) -> None:
    job = Job(house, line(1, messages="no"))
    job.post()
    await house.agent.expect(JobAccepted)
    finished, data = await job.run()
    assert job.read(finished, data).stop is Stop.INVALID and finished.amount_nano == house.terms.minimum_nano
    house.engine.breaks_after = 1
    job = Job(house)
    begin = job.begin(epoch=JOB_EPOCH + 1)
    job.post(begin)
    await house.agent.expect(JobAccepted)
    finished, _ = await job.run()
    assert finished.amount_nano == charge(house.terms, Usage(), Stop.FAILED) == 0


async def test_g4_a_job_runs_once_and_its_acceptance_is_repeated(house: House) -> None:
    job = Job(house)
    job.post()
    first = await house.agent.expect(JobAccepted)
    house.agent.link.post(job.begin())
    assert await house.agent.expect(JobAccepted) == first
    house.agent.link.post(job.begin(maximum_nano=1))
    await job.refused(Code.ALREADY_OPENED)
    await job.run()
    house.agent.link.post(JobRun(JOB, int(time.time() + 60)))
    job.post()
    await job.refused(Code.ALREADY_OPENED)
    assert len(house.engine.requests) == 2


async def test_a_job_whose_time_is_up_ends_with_what_there_is(house: House) -> None:
    house.engine.gate, house.engine.gate_after = asyncio.Event(), 0
    job = Job(house)
    job.post()
    await house.agent.expect(JobAccepted)
    finished, data = await job.run(seconds=1.5)
    result = job.read(finished, data)
    assert [one.error["code"] for one in job.answers(result)] == ["timeout"] * 2 and finished.amount_nano == 0
    assert house.engine.closed_streams == 2


async def test_a_running_job_can_be_ended_with_what_there_is(house: House) -> None:
    job = Job(house)
    job.post()
    await house.agent.expect(JobAccepted)
    house.engine.gate, house.engine.gate_after = asyncio.Event(), 0
    house.agent.link.post(JobRun(JOB, int(time.time() + 60)))
    await asyncio.wait_for(house.engine.held.wait(), 5)
    house.agent.link.post(JobRun(JOB, int(time.time() + 30)))
    finished, data = await job.run(seconds=-1)
    assert [one.error["code"] for one in job.answers(job.read(finished, data))] == ["timeout"] * 2


async def test_jobs_leave_places_to_requests() -> None:
    house = await House().start(ScriptedEngine(), job_lines=2)
    try:
        house.engine.gate = asyncio.Event()
        job = Job(house, *(line(number) for number in range(6)))
        job.post()
        await house.agent.expect(JobAccepted)
        house.agent.link.post(JobRun(JOB, int(time.time() + 60)))
        await asyncio.wait_for(house.engine.held.wait(), 5)
        await asyncio.sleep(0.05)
        assert len(house.engine.requests) == 2
        house.engine.gate.set()
        assert len(job.answers(job.read(*await job.finished()))) == 6
    finally:
        await house.stop()


async def test_a_node_may_take_no_jobs_and_not_too_many_at_once(house: House) -> None:
    job = Job(house)
    for number in range(4):
        house.agent.link.post(job.begin(job=secrets.token_bytes(32), epoch=number))
    job.post()
    await job.refused(Code.NODE_BUSY)
    idle = await House().start(ScriptedEngine(), job_lines=0)
    try:
        other = Job(idle)
        other.post()
        await other.refused(Code.NODE_BUSY)
    finally:
        await idle.stop()


async def test_g11_nothing_of_a_job_crosses_to_the_agent_in_clear(house: House) -> None:
    job = Job(house)
    job.post()
    await house.agent.expect(JobAccepted)
    finished, data = await job.run()
    assert hashlib.sha256(data).digest() == finished.result
    assert b"three" not in data and PROMPT.encode() not in data and EPOCH and SECRET not in data


async def test_g4_an_input_that_is_sent_twice_is_opened_and_accepted_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened beside itself, the second opening would make a running job ready to be run again: two results, one id."""
    opened, gate, real = [], threading.Event(), jobs.open_job
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    def slow(*facts, **named):
        opened.append(facts)
        loop.call_soon_threadsafe(begun.set)
        gate.wait(10)
        return real(*facts, **named)

    monkeypatch.setattr(jobs, "open_job", slow)
    job = Job(house)
    job.post()
    await begun.wait()
    for at in range(0, len(job.sealed.ciphertext), 1000):
        house.agent.link.post(JobInput(JOB, job.sealed.ciphertext[at : at + 1000]))
    house.agent.link.post(job.begin())
    await asyncio.sleep(0.2)
    gate.set()
    await house.agent.expect(JobAccepted)
    job.read(*await job.run())
    await asyncio.sleep(0.1)
    assert len(opened) == 1 and house.agent.inbox.empty()


class Guard:
    """GPUs that fail when a test says so."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    def fault(self) -> str | None:
        return "a GPU failed" if self.failed.is_set() else None

    async def watch(self) -> str:
        await self.failed.wait()
        return "a GPU failed"


async def test_a_failed_gpu_opens_no_job_and_ends_those_that_run() -> None:
    guard = Guard()
    house = await House().start(ScriptedEngine(), guard=guard)
    try:
        house.engine.gate = asyncio.Event()
        job, second = Job(house), Job(house)
        job.post()
        await house.agent.expect(JobAccepted)
        house.agent.link.post(JobRun(JOB, int(time.time() + 60)))
        await asyncio.wait_for(house.engine.held.wait(), 5)
        fault, guard.fault = guard.fault, lambda: "a GPU failed"
        other = b"o" * 32
        house.agent.link.post(second.begin(job=other))
        house.agent.link.post(JobInput(other, second.sealed.ciphertext))
        await second.refused(Code.NODE_NOT_LIVE)
        guard.fault = fault
        guard.failed.set()
        await house.agent.expect(Failed)
        result = job.read(*await job.finished())
        assert [one.error["code"] for one in job.answers(result)] == ["timeout"] * 2, "posted with what there is"
    finally:
        await house.stop()
