"""Jobs between the agent and its enclave: inputs go in, signed acceptances and results come out and onto the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from worker.agent.enclave_process import Enclave, EnclaveGone
from worker.agent.job_records import JobRecord, JobRecords, Stage
from worker.agent.rounds import tell
from worker.job_messages import (
    PIECE_BYTES,
    JobAccepted,
    JobBegin,
    JobDrop,
    JobFinished,
    JobInput,
    JobPiece,
    JobRefused,
    JobRun,
)
from wrappers.job import JobState

log = logging.getLogger(__name__)

OPENING_SECONDS = 180.0
STOP_SECONDS = 20.0
DISK_SECONDS = 5.0
FromEnclave = JobAccepted | JobRefused | JobPiece | JobFinished


class NotTaken(Exception):
    """The enclave refused a job. `code`: protocol.errors.Code."""

    def __init__(self, message: JobRefused) -> None:
        super().__init__(f"{message.cause}; {message.cure}")
        self.code = message.code


class EnclaveJobs:
    """`enclave`: the one whose key the chain shows as attested, None while there is none."""

    def __init__(self, records: JobRecords, enclave: Callable[[], Enclave | None]) -> None:
        self.running: set[bytes] = set()
        """Jobs whose result is still to come, or not on the disk yet."""
        self._records = records
        self._enclave = enclave
        self._opening: dict[bytes, asyncio.Future[bytes]] = {}
        self._parts: dict[bytes, bytearray] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._stored = asyncio.Event()

    async def open(self, record: JobRecord, state: JobState, enclave: Enclave) -> bytes:
        """Its signature over the acceptance. Raises NotTaken, EnclaveGone, TimeoutError, OSError."""
        answer = self._opening[record.job] = asyncio.get_running_loop().create_future()
        try:
            data = await asyncio.to_thread(self._records.input, record.job)
            await enclave.send(JobBegin(record.job, state.epoch, state.config.maximum_nano, record.spec, record.wraps))
            for at in range(0, len(data), PIECE_BYTES):
                await enclave.send(JobInput(record.job, data[at : at + PIECE_BYTES]))
            async with asyncio.timeout(OPENING_SECONDS):
                return await answer
        finally:
            self._opening.pop(record.job, None)

    async def start(self, job: bytes, ends_at: int, enclave: Enclave) -> None:
        """Lines without an answer by `ends_at` (unix seconds of this machine) get an error. Raises EnclaveGone."""
        self.running.add(job)
        self._parts[job] = bytearray()
        await enclave.send(JobRun(job, ends_at))

    def drop(self, job: bytes) -> None:
        """The job ended without us."""
        enclave = self._enclave()
        if enclave is not None:
            enclave.post(JobDrop(job))
        self.running.discard(job)
        self._parts.pop(job, None)

    async def stop(self) -> None:
        """End what runs with the answers that there are and store them: the process after this one posts them.

        Without it every restart would cost the stake of what runs: only this enclave's key can sign its results.
        """
        enclave = self._enclave()
        if enclave is None or not self.running:
            return
        try:
            for job in self.running:
                await enclave.send(JobRun(job, 0))
            async with asyncio.timeout(STOP_SECONDS):
                while self.running:
                    await asyncio.gather(self._stored.wait(), *self._storing)
                    self._stored.clear()
        except (EnclaveGone, TimeoutError):
            log.error("jobs were running and their results did not come: their maxima are at stake")

    async def storing(self) -> None:
        """Returns when every result that came is on the disk."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    def on_message(self, message: FromEnclave) -> None:
        match message:
            case JobAccepted():
                self._answer(message.job, message.signature)
            case JobRefused():
                self._answer(message.job, NotTaken(message))
            case JobPiece():
                if (parts := self._parts.get(message.job)) is not None:
                    parts += message.data
            case JobFinished():
                task = asyncio.ensure_future(self._finished(message, bytes(self._parts.pop(message.job, b""))))
                self._storing.add(task)
                task.add_done_callback(self._storing.discard)

    def enclave_gone(self) -> None:
        for job in tuple(self._opening):
            self._answer(job, EnclaveGone("the enclave ended while it opened a job"))
        self.running.clear()
        self._stored.set()
        self._parts.clear()

    def _answer(self, job: bytes, answer: bytes | Exception) -> None:
        waiting = self._opening.get(job)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, bytes):
            waiting.set_result(answer)
        else:
            waiting.set_exception(answer)

    async def _finished(self, message: JobFinished, data: bytes) -> None:
        """Until it is on disk, result and signature exist in this process alone: so until the disk takes it."""
        name = message.job.hex()
        while self._records.get(message.job) is not None:
            try:
                await asyncio.to_thread(self._store, message, data)
            except OSError as error:
                log.error("the result of job %s cannot be stored: %s; make room on the disk", name, error)
                await asyncio.sleep(DISK_SECONDS)
            except Exception as error:
                tell(f"the result of job {name} is lost, and its maximum is at stake", error, ())
                break
            else:
                log.info("job %s is finished: %d nanoTON", name, message.amount_nano)
                break
        # A job that was forgotten meanwhile has no folder to wait for: its result is nobody's any more.
        self.running.discard(message.job)
        self._stored.set()

    def _store(self, message: JobFinished, data: bytes) -> None:
        self._records.put_result(message.job, data)
        self._records.change(
            message.job,
            stage=Stage.FINISHED,
            result=message.result,
            amount_nano=message.amount_nano,
            inner=message.inner,
            signature=message.signature,
        )
