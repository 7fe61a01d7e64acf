"""The enclave as the agent's child: start it, talk to it, notice its death. A new process is a new key."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any, cast

from pytoniq_core import Cell

from worker.agent.rounds import tell
from worker.fields import LinkError, Message
from worker.job_messages import JobAccepted, JobFinished, JobPiece, JobRefused
from worker.link import Link, LinkClosed
from worker.messages import (
    Answer,
    Attest,
    Certified,
    Certify,
    ClaimLine,
    ClaimSigned,
    EvidenceReady,
    Failed,
    Introduce,
    Issued,
    Judge,
    Judged,
    Notarise,
    Notarised,
    Ready,
    SealingKeys,
    SealingOffer,
    SignClaim,
)
from wrappers.cells import to_boc

log = logging.getLogger(__name__)

ORDER_SECONDS = 30.0
ATTEST_SECONDS = 180.0
"""Each of up to sixteen GPUs signs a report of its own first, one after the other."""


class EnclaveGone(Exception):
    """The enclave died or cannot be started. Names the cause and where to look."""


class EnclaveRefused(Exception):
    """The enclave did not carry out an order. In its own words."""


class Enclave:
    """One running enclave. `on_answer` and `on_issued` are called for every message about a request, in order."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        link: Link,
        ready: Ready,
        *,
        on_answer: Callable[[Answer], None],
        on_issued: Callable[[Issued], None],
        on_sealing: Callable[[], None],
        on_job: Callable[[JobAccepted | JobRefused | JobPiece | JobFinished], None],
    ) -> None:
        self.ready = ready
        self.sealing: tuple[SealingOffer, ...] = ()
        self._process = process
        self._link = link
        self._on_answer = on_answer
        self._on_issued = on_issued
        self._on_sealing = on_sealing
        self._on_job = on_job
        self._evidence: asyncio.Future[bytes] | None = None
        self._numbered: dict[int, asyncio.Future[Any]] = {}
        """What is waited for, by the number of its order: signed claims, judgements."""
        self._certified: asyncio.Future[int] | None = None
        self._attesting = asyncio.Lock()
        self.alive = True

    @property
    def key(self) -> bytes:
        return self.ready.signing_key

    @property
    def pid(self) -> int:
        return self._process.pid

    def post(self, message: Message) -> None:
        self._link.post(message)

    async def send(self, message: Message) -> None:
        """The same, for what is large: waits while the enclave is behind. Raises EnclaveGone."""
        self._check_alive()
        try:
            await self._link.send(message)
        except LinkClosed as error:
            raise EnclaveGone("the enclave ended") from error

    def introduce(self, facts: Introduce) -> None:
        self._link.post(facts)

    async def attest(self, block_seqno: int, block_root_hash: bytes) -> bytes:
        """JSON of the evidence. Raises EnclaveRefused, EnclaveGone, TimeoutError."""
        async with self._attesting:
            self._check_alive()
            self._evidence = asyncio.get_running_loop().create_future()
            self._link.post(Attest(block_seqno, block_root_hash))
            try:
                async with asyncio.timeout(ATTEST_SECONDS):
                    return await self._evidence
            finally:
                self._evidence = None

    async def certify(self, order: Certify) -> int:
        """When the TLS key that is served now ends. Raises EnclaveRefused, EnclaveGone, TimeoutError."""
        async with self._attesting:
            self._check_alive()
            self._certified = asyncio.get_running_loop().create_future()
            self._link.post(order)
            try:
                async with asyncio.timeout(ORDER_SECONDS):
                    return await self._certified
            finally:
                self._certified = None

    async def claim(self, seqno: int, valid_until: int, lines: tuple[ClaimLine, ...]) -> ClaimSigned:
        """Raises EnclaveRefused, EnclaveGone, TimeoutError."""
        self._check_alive()
        order, signed = self._order()
        self._link.post(SignClaim(order, seqno, valid_until, lines))
        return cast(ClaimSigned, await self._answer(order, signed))

    async def judge(self, question: Cell, evidence: Cell, collateral: Cell) -> Judged:
        """The enclave's signed answer to a committee's question. Raises EnclaveRefused, EnclaveGone, TimeoutError."""
        self._check_alive()
        order, judged = self._order()
        self._link.post(Judge(order, to_boc(question), to_boc(evidence), to_boc(collateral)))
        return cast(Judged, await self._answer(order, judged))

    async def notarise(self, allotment: bytes) -> Notarised:
        """The latest receipt's hash, signed for the chain. Raises EnclaveRefused, EnclaveGone, TimeoutError."""
        self._check_alive()
        order, signed = self._order()
        self._link.post(Notarise(order, allotment))
        return cast(Notarised, await self._answer(order, signed))

    def _order(self) -> tuple[int, asyncio.Future[Any]]:
        order = secrets.randbits(32)
        waiting = self._numbered[order] = asyncio.get_running_loop().create_future()
        return order, waiting

    async def _answer(self, order: int, waiting: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                return await waiting
        finally:
            self._numbered.pop(order, None)

    async def serve(self) -> None:
        """Pass on what the enclave says, until it is gone: always ends with EnclaveGone."""
        try:
            while True:
                message = await self._link.receive()
                try:
                    self._take(message)
                except LinkError:
                    raise
                except Exception as error:
                    # What one request or job comes to must not end the key that all the others are signed with.
                    tell(f"{type(message).__name__} of the enclave was not handled", error, ())
        except LinkClosed:
            code = await self._process.wait()
            raise EnclaveGone(f"the enclave ended with code {code}; its log is beside the agent's") from None
        except LinkError as error:
            raise EnclaveGone(f"the enclave broke the link's protocol: {error}") from error
        finally:
            self._fail_waiting()

    async def stop(self) -> None:
        """End the process; returns when it is gone."""
        self._fail_waiting()
        await self._link.close()
        await kill(self._process)

    def _check_alive(self) -> None:
        if not self.alive:
            raise EnclaveGone("the enclave is gone; it is being started anew")

    def _fail_waiting(self) -> None:
        self.alive = False
        waiting: list[asyncio.Future[Any]] = [*self._numbered.values()]
        waiting += [future for future in (self._evidence, self._certified) if future is not None]
        for future in waiting:
            if not future.done():
                future.set_exception(EnclaveGone("the enclave ended while it worked on an order"))

    def _take(self, message: Message) -> None:
        match message:
            case Answer():
                self._on_answer(message)
            case Issued():
                self._on_issued(message)
            case SealingKeys():
                self.sealing = message.keys
                self._on_sealing()
            case JobAccepted() | JobRefused() | JobPiece() | JobFinished():
                self._on_job(message)
            case EvidenceReady():
                if self._evidence is not None and not self._evidence.done():
                    self._evidence.set_result(message.evidence)
            case Certified():
                if self._certified is not None and not self._certified.done():
                    self._certified.set_result(message.expires_at)
            case ClaimSigned() | Judged() | Notarised():
                waiting = self._numbered.get(message.order)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Failed():
                self._failed(message)
            case _:
                raise LinkError(f"{type(message).__name__} is out of place")

    def _failed(self, message: Failed) -> None:
        if message.what == "gpu":
            # It refuses every request from here on, and ends by itself: a new one is started as after any death.
            log.error("the enclave stops serving: %s. %s", message.cause, message.cure)
            return
        singly: dict[str, asyncio.Future[Any] | None] = {"attest": self._evidence, "certify": self._certified}
        waiting = singly[message.what] if message.what in singly else self._numbered.get(message.order)
        if waiting is not None and not waiting.done():
            waiting.set_exception(EnclaveRefused(f"{message.cause}. {message.cure}"))


async def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            process.terminate()
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        except ProcessLookupError:
            await process.wait()
