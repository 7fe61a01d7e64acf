"""The enclave at work for one agent: opens sealed requests, checks what protects the client, answers, signs.

Nothing that the agent says is trusted for the client's sake. It says who this node is, what block is newest, which key
an escrow's vouchers are signed with and what has landed on chain; each lie there yields evidence, receipts or claims
that clients or the chain refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass

from protocol.offer import AnnouncedKey
from worker.enclave.attest import GPU_CURE, evidence_for
from worker.enclave.books import Books, BooksError
from worker.enclave.direct import Direct
from worker.enclave.gpu import GpuFailed, GpuGuard
from worker.enclave.jobs import Jobs
from worker.enclave.judge import answer_to
from worker.enclave.loaded import Loaded
from worker.enclave.requests import Requests
from worker.fields import LinkError, Message
from worker.job_messages import JobBegin, JobDrop, JobInput, JobRun
from worker.link import Link, LinkClosed
from worker.messages import (
    Attest,
    Cancel,
    Certify,
    ClaimSigned,
    Failed,
    Introduce,
    Judge,
    Notarise,
    Notarised,
    OfferedModel,
    Post,
    Ready,
    SealingKeys,
    SealingOffer,
    SignClaim,
    Stored,
)
from wrappers.cells import to_boc
from wrappers.signed import node_id

log = logging.getLogger(__name__)

LAST_ANSWERS_SECONDS = 30.0
"""How long receipts of cut answers may take to reach the disk before the enclave ends."""


@dataclass(frozen=True, slots=True)
class _Node:
    facts: Introduce
    node_id: bytes
    books: Books
    jobs: Jobs


class Session:
    """Serves one link until it closes, or its GPUs fail. The keys outlive no session: see `worker.enclave.server`."""

    def __init__(self, loaded: Loaded, link: Link) -> None:
        self._have = loaded
        self._terms = loaded.terms
        self._link = link
        self._node: _Node | None = None
        self._requests = Requests(loaded, link.send)
        self._direct = Direct(loaded.keys)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the agent is gone. Raises LinkError when it breaks the protocol, GpuFailed when a GPU fails."""
        model = self._have.model
        offered = OfferedModel(model.name, model.context_tokens, to_boc(self._terms.to_cell()))
        ready = Ready(self._have.keys.public, self._have.config.simulated, model.measured, (offered,))
        try:
            await self._link.send(ready)
            if self._have.guard is not None:
                self._spawn(self._watch(self._have.guard))
            while True:
                self._dispatch(await self._link.receive())
        except LinkClosed:
            if (fault := self._have.gpu_fault()) is not None:
                raise GpuFailed(fault) from None
            log.info("the agent is gone")
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._direct.close()

    def _dispatch(self, message: Message) -> None:
        match message:
            case Introduce():
                self._introduce(message)
            case Attest():
                self._spawn(self._attest(self._introduced().facts, message))
            case Post():
                node = self._introduced()
                self._spawn(self._requests.begin(node.facts, node.books, message))
            case Stored():
                self._requests.stored(message.request_id)
            case Cancel():
                self._requests.cancel(message.request_id)
            case SignClaim():
                self._spawn(self._claim(self._introduced(), message))
            case Certify():
                self._spawn(self._certify(message))
            case Notarise():
                self._spawn(self._notarise(self._introduced(), message))
            case Judge():
                self._spawn(self._judge(self._introduced().facts.network, message))
            case _:
                self._dispatch_job(message)

    def _dispatch_job(self, message: Message) -> None:
        if not isinstance(message, JobBegin | JobInput | JobRun | JobDrop):
            raise LinkError(f"{type(message).__name__} is not for the enclave")
        if (work := self._introduced().jobs.take(message)) is not None:
            self._spawn(work)

    def _introduced(self) -> _Node:
        if self._node is None:
            raise LinkError("the agent gave work before it said which node this is")
        return self._node

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, LinkClosed):
            return
        # The text of an unexpected error may quote what a client sent: its type and place are all that may be logged.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
        log.error("a task ended with %s at %s", type(error).__name__, place)

    # ---- who we are

    def _introduce(self, facts: Introduce) -> None:
        if self._node is not None:
            raise LinkError("the agent introduced a second node: one enclave serves one node")
        id_ = node_id(facts.network, facts.node, facts.node_epoch)
        books = Books(self._have.keys, facts.node, id_, facts.tokens, self._have.config.max_unacked)
        have = self._have
        lines = have.config.job_lines
        send = self._link.send
        jobs = Jobs(have.keys, have.engine, have.model, self._terms, facts, lines, send, have.gpu_fault)
        self._node = _Node(facts, id_, books, jobs)
        self._spawn(self._rotate(self._node))

    async def _rotate(self, node: _Node) -> None:
        ring = self._have.keys.sealing
        while True:
            if ring.turn(int(time.time())):
                announced = (
                    AnnouncedKey.announce(pair, node.node_id, expires_at, self._have.keys.signing)
                    for pair, expires_at in ring.keys
                )
                keys = tuple(SealingOffer(key.public_key, key.expires_at, key.signature) for key in announced)
                await self._link.send(SealingKeys(keys))
            # Not all of the wait at once: a machine that sleeps stops this clock and not the other.
            await asyncio.sleep(min(60.0, max(1.0, ring.next_turn() - time.time())))

    async def _attest(self, facts: Introduce, order: Attest) -> None:
        have = self._have
        await self._link.send(await evidence_for(facts, order, have.keys.public, have.quotes, have.guard))

    async def _watch(self, guard: GpuGuard) -> None:
        """When a GPU fails: cut what runs, say so, and end once the receipts for it are stored."""
        fault = await guard.watch()
        self._requests.cancel_all()
        await self._link.send(Failed("gpu", 0, fault, GPU_CURE))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_SECONDS):
                if self._node is not None:
                    await self._node.jobs.cut()
                await self._requests.idle()
        await self._link.close()

    async def _judge(self, network: bytes, order: Judge) -> None:
        await self._link.send(await answer_to(order, network, self._have.keys))

    async def _certify(self, order: Certify) -> None:
        await self._link.send(await self._direct.certify(order, int(time.time())))

    # ---- claims

    async def _claim(self, node: _Node, order: SignClaim) -> None:
        try:
            message = node.books.claim(order.seqno, order.valid_until, order.lines)
        except BooksError as error:
            await self._link.send(Failed("claim", order.order, str(error), "Correct the claim's lines"))
            return
        await self._link.send(ClaimSigned(order.order, order.seqno, order.valid_until, to_boc(message)))

    async def _notarise(self, node: _Node, order: Notarise) -> None:
        try:
            seq, hash_, signature = node.books.notarise(order.allotment)
        except BooksError as error:
            await self._link.send(Failed("notarise", order.order, str(error), "Name an allotment that it served"))
            return
        await self._link.send(Notarised(order.order, seq, hash_, signature))
