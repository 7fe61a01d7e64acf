"""Batch jobs in the enclave: nothing is signed before the whole input was opened and priced, and each runs once.

What the agent says of the chain can only harm its operator: an acceptance or a result for another job, epoch or
maximum than the chain's is refused there. Inputs, plaintext and answers live in memory alone; an enclave that dies
after its acceptance owes a result that nobody can sign any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto, unique

from protocol import jobs
from protocol.errors import Code, PeerFault, WireError
from protocol.job_lines import read_lines
from protocol.pricing import charge
from worker.enclave.job_run import Runner, Step, plan, worst_case
from worker.enclave.keys import Keys
from worker.engine.api import Engine, ModelInfo
from worker.fields import LinkError, Message
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
from worker.messages import Introduce
from wrappers.cells import CellError, from_boc
from wrappers.job import JobSpec
from wrappers.receipts import Terms
from wrappers.signed import Acceptance, JobResult, job_id, node_id, sign

MAX_JOBS = 4
"""Held in memory at once."""
_Job = JobBegin | JobInput | JobRun | JobDrop


@unique
class _State(Enum):
    GATHERING = auto()
    OPENING = auto()
    ACCEPTED = auto()
    RUNNING = auto()


@dataclass(slots=True)
class _Held:
    begin: JobBegin
    spec: JobSpec
    id: bytes
    input: bytearray = field(default_factory=bytearray, repr=False)
    state: _State = _State.GATHERING
    opened: jobs.JobInput | None = field(default=None, repr=False)
    steps: tuple[Step, ...] = field(default=(), repr=False)
    acceptance: bytes = b""
    cut: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class _No(Exception):
    def __init__(self, error: WireError) -> None:
        super().__init__(error.cause)
        self.error = error


class Jobs:
    """`send` writes to the agent; `fault` says why this machine may open nothing at present, if so."""

    def __init__(
        self,
        keys: Keys,
        engine: Engine,
        model: ModelInfo,
        terms: Terms,
        node: Introduce,
        together: int,
        send: Callable[[Message], Awaitable[None]],
        fault: Callable[[], str | None],
    ) -> None:
        self._keys = keys
        self._model = model
        self._terms = terms
        self._node = node
        self._node_id = node_id(node.network, node.node, node.node_epoch)
        self._together = together
        self._runner = Runner(engine, together)
        self._send = send
        self._fault = fault
        self._held: dict[bytes, _Held] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._ran: set[bytes] = set()
        """Job ids that were run: never again, whatever the agent says."""

    def take(self, message: _Job) -> Awaitable[None] | None:
        """What is left to do for this message, if anything. Raises LinkError when it is out of place."""
        match message:
            case JobBegin():
                return self._begin(message)
            case JobInput():
                return self._input(message)
            case JobRun():
                return self._run(message)
            case JobDrop():
                held = self._held.get(message.job)
                if held is not None and held.state is not _State.RUNNING:
                    del self._held[message.job]
                return None

    async def cut(self) -> None:
        """End what runs with the answers that there are; returns when the results are with the agent."""
        for held in self._held.values():
            held.cut.set()
        await self._idle.wait()

    # ---- opening

    def _begin(self, begin: JobBegin) -> Awaitable[None] | None:
        held = self._held.get(begin.job)
        try:
            if held is not None and held.state is not _State.GATHERING:
                if held.begin != begin:
                    raise _No(WireError.of(Code.ALREADY_OPENED, "the job was accepted under other facts"))
                if held.state is _State.OPENING:
                    return None  # its answer is on the way
                return self._send(JobAccepted(begin.job, held.acceptance))
            spec, id_ = self._checked(begin)
        except _No as no:
            return self._refuse(begin.job, no.error)
        self._held[begin.job] = _Held(begin, spec, id_)
        return None

    def _checked(self, begin: JobBegin) -> tuple[JobSpec, bytes]:
        if not self._together:
            raise _No(WireError.of(Code.NODE_BUSY, "its enclave is configured to take no jobs"))
        if len(self._held.keys() - {begin.job}) >= MAX_JOBS:
            raise _No(WireError.of(Code.NODE_BUSY, f"{MAX_JOBS} jobs are held already"))
        try:
            spec = JobSpec.from_cell(from_boc(begin.spec))
        except CellError as error:
            raise _No(WireError.of(Code.BAD_REQUEST, str(error))) from error
        id_ = job_id(self._node.network, begin.job, begin.epoch, spec.hash)
        if id_ in self._ran:
            raise _No(WireError.of(Code.ALREADY_OPENED, "this job was run"))
        if not 0 < spec.size <= jobs.MAX_INPUT_BYTES:
            raise _No(WireError.of(Code.TOO_LARGE, f"an input of {spec.size} bytes"))
        if spec.terms != self._terms.hash:
            raise _No(WireError.of(Code.TERMS_REFUSED))
        return spec, id_

    def _input(self, message: JobInput) -> Awaitable[None] | None:
        held = self._held.get(message.job)
        if held is None or held.state is not _State.GATHERING:
            return None  # it was refused, or dropped, while pieces were on their way
        if len(held.input) + len(message.data) > held.spec.size:
            raise LinkError("the agent sent more input than the job has")
        held.input += message.data
        if len(held.input) < held.spec.size:
            return None
        # From here on no piece is taken: an input that is sent again must not be opened beside itself.
        held.state = _State.OPENING
        return self._open(held)

    async def _open(self, held: _Held) -> None:
        job = held.begin.job
        try:
            await self._opened(held)
        except _No as no:
            self._forget(held)
            await self._refuse(job, no.error)
            return
        except BaseException:
            self._forget(held)
            raise
        if self._held.get(job) is not held:
            return  # dropped meanwhile
        held.acceptance = sign(Acceptance(held.id, self._node_id), self._keys.signing)
        held.state = _State.ACCEPTED
        await self._send(JobAccepted(job, held.acceptance))

    async def _opened(self, held: _Held) -> None:
        if (fault := self._fault()) is not None:
            # Before it is opened: no plaintext in a machine that is not what it was attested to be.
            raise _No(WireError.of(Code.NODE_NOT_LIVE, fault))
        begin, spec, sealed = held.begin, held.spec, bytes(held.input)
        held.input.clear()
        try:
            wrapped = jobs.wrap_for(spec, begin.wraps, self._node.node)
            pair = self._keys.sealing.find(wrapped.sealing_key_hash, int(time.time()))
            if pair is None:
                raise _No(WireError.of(Code.SEALING_KEY_UNKNOWN))
            opened = await asyncio.to_thread(
                jobs.open_job, pair, wrapped, spec=spec, ciphertext=sealed, network=self._node.network, job=begin.job
            )
            lines = await asyncio.to_thread(read_lines, opened.body)
        except PeerFault as error:
            raise _No(WireError.of(Code.NOT_OPENED, error.cause)) from error
        if opened.terms != self._terms:
            raise _No(WireError.of(Code.TERMS_REFUSED))
        if len(lines) != spec.lines:
            raise _No(WireError.of(Code.BAD_REQUEST, f"{len(lines)} lines where the job names {spec.lines}"))
        steps = await asyncio.to_thread(plan, lines, self._model)
        worst, maximum = worst_case(self._terms, steps), min(opened.maximum_nano, begin.maximum_nano)
        if worst is None:
            raise _No(WireError.of(Code.TOO_LARGE, "the lines may take more tokens than one result can name"))
        if worst > maximum:
            raise _No(
                WireError.of(Code.MAXIMUM_TOO_LOW, f"the lines may cost {worst} nanoTON, the maximum is {maximum}")
            )
        held.opened, held.steps = opened, steps

    def _forget(self, held: _Held) -> None:
        if self._held.get(held.begin.job) is held:
            del self._held[held.begin.job]

    async def _refuse(self, job: bytes, error: WireError) -> None:
        await self._send(JobRefused(job, error.code.value, error.cause, error.cure))

    # ---- running

    def _run(self, message: JobRun) -> Awaitable[None] | None:
        held = self._held.get(message.job)
        if held is None or held.opened is None or held.state is _State.OPENING:
            return None
        if held.state is _State.RUNNING:
            if message.ends_at <= time.time():
                held.cut.set()
            return None
        if held.id in self._ran:
            return None  # two results under one id would let the operator choose
        held.state = _State.RUNNING
        self._ran.add(held.id)
        self._idle.clear()
        return self._work(held, held.opened, message.ends_at)

    async def _work(self, held: _Held, opened: jobs.JobInput, ends_at: int) -> None:
        secret = opened.response_secret
        # Prefixes are shared within the job, by salt, and with nobody else (G15).
        salt = self._keys.cache_salt(held.begin.job, hashlib.sha256(secret).digest())
        try:
            done = await self._runner.run(held.steps, salt, ends_at - time.time(), held.cut)
            model = self._model.model_hash
            inner = jobs.usage_cell(secret, held.id, held.spec, model, done.usage, done.stop, done.answers)
            sealed = await asyncio.to_thread(jobs.seal_result, secret, held.id, held.spec, inner, done.answers)
            amount = charge(self._terms, done.usage, done.stop)
            result = JobResult(held.id, hashlib.sha256(sealed).digest(), amount, inner.hash)
            signature = sign(result, self._keys.signing)
            for at in range(0, len(sealed), PIECE_BYTES):
                await self._send(JobPiece(held.begin.job, sealed[at : at + PIECE_BYTES]))
            finished = JobFinished(held.begin.job, result.result, amount, result.inner, signature)
            await self._send(finished)
        finally:
            self._forget(held)
            if not any(one.state is _State.RUNNING for one in self._held.values()):
                self._idle.set()
