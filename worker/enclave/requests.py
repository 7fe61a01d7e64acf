"""Requests in the enclave: each is opened once, admitted, answered by the engine, and ends with a signed receipt."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field

from protocol.errors import Code, WireError
from protocol.frames import Refusal, error_frame
from protocol.opening import Opening
from protocol.sealing import SealedRequest
from protocol.stream import ResponseWriter
from worker.enclave.answer import Answering, Refused, inner_receipt, plan
from worker.enclave.books import Books
from worker.enclave.loaded import Loaded
from worker.enclave.opening import open_request
from worker.enclave.wire import Outbox, Send
from worker.fields import LinkError
from worker.link import LinkClosed
from worker.messages import Introduce, Post


@dataclass(slots=True)
class _Running:
    outbox: Outbox
    answering: Answering | None = None
    cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Requests:
    """`send` writes to the agent."""

    def __init__(self, loaded: Loaded, send: Send) -> None:
        self._have = loaded
        self._terms = loaded.terms
        self._send = send
        self._running: dict[bytes, _Running] = {}
        self._in_flight = 0

    def begin(self, facts: Introduce, books: Books, post: Post) -> Coroutine[None, None, None]:
        """The work on a request, to be run. Raises LinkError when that request runs already."""
        if post.request_id in self._running:
            raise LinkError("the agent posted a request twice while it runs")
        outbox = Outbox(post.request_id, self._send, lambda: self._over(post.request_id, running))
        running = self._running[post.request_id] = _Running(outbox)
        return self._serve(facts, books, post, running)

    def stored(self, request_id: bytes) -> None:
        """Its receipt is on the agent's disk."""
        if (running := self._running.get(request_id)) is not None:
            running.outbox.stored()

    def cancel(self, request_id: bytes) -> None:
        running = self._running.get(request_id)
        if running is not None:
            running.cancelled = True
            if running.answering is not None:
                running.answering.cancel()

    def cancel_all(self) -> None:
        for request_id in tuple(self._running):
            self.cancel(request_id)

    async def idle(self) -> None:
        """Returns when nothing is being answered."""
        while self._running:
            await next(iter(self._running.values())).ended.wait()

    def _over(self, request_id: bytes, running: _Running) -> None:
        """A repeat of the request is another one: it stays."""
        running.ended.set()
        if self._running.get(request_id) is running:
            del self._running[request_id]

    async def _serve(self, facts: Introduce, books: Books, post: Post, running: _Running) -> None:
        try:
            if self._have.gpu_fault() is not None:
                # Before it is opened: no plaintext in a machine whose GPUs are not what they were attested to be.
                error = WireError.of(Code.NODE_NOT_LIVE, "its GPUs do not verify any more")
                await running.outbox.end(error_frame(error).to_bytes())
                return
            try:
                request, opening = open_request(self._have.keys, books, facts, post, int(time.time()))
            except Refused as refused:
                await running.outbox.end(error_frame(refused.error).to_bytes())
                return
            await self._answer(books, post, request, opening, running)
        except LinkClosed:
            raise
        except Exception:
            # Our own fault. The client must not hang; that it is not billed is the operator's loss.
            await running.outbox.end(error_frame(WireError.of(Code.INTERNAL)).to_bytes())
            raise
        finally:
            self._over(post.request_id, running)
            self._in_flight -= running.answering is not None

    async def _answer(
        self, books: Books, post: Post, request: SealedRequest, opening: Opening, running: _Running
    ) -> None:
        writer = ResponseWriter(
            response_secret=opening.response_secret,
            enc=request.enc,
            request_id=request.request_id,
            worker_nonce=secrets.token_bytes(32),
            quantum_bytes=opening.shape.quantum_bytes,
        )
        outbox, head = running.outbox, writer.head()
        if (refusal := self._admit(books, post, request, opening, running, writer)) is not None:
            await outbox.end(head + writer.refusal(refusal))
            return
        answering = running.answering
        if answering is None:
            raise RuntimeError("a request was admitted without a plan")
        await outbox.frames(head)
        if running.cancelled:
            answering.cancel()
        salt = self._have.keys.cache_salt(request.escrow, post.voucher_key)
        outcome = await answering.run(self._have.engine, salt)
        inner = inner_receipt(opening, request.request_id, self._have.model, outcome, writer.commitment.digest())
        issue = books.issue(request.voucher.allotment, request.request_id, inner)
        await outbox.receipt(issue, writer.receipt(issue.receipt.signed))
        await outbox.end(writer.last(inner))

    def _admit(
        self,
        books: Books,
        post: Post,
        request: SealedRequest,
        opening: Opening,
        running: _Running,
        writer: ResponseWriter,
    ) -> Refusal | None:
        if opening.terms != self._terms:
            return Refusal(WireError.of(Code.TERMS_REFUSED))
        if self._in_flight >= self._have.config.max_in_flight:
            return Refusal(WireError.of(Code.NODE_BUSY))
        try:
            task = plan(opening, self._have.model)
        except Refused as refused:
            return Refusal(refused.error)
        refusal = books.admit(request, opening, post.voucher_key)
        if refusal is None:
            self._in_flight += 1
            running.answering = Answering(opening, task, writer, running.outbox)
        return refusal
