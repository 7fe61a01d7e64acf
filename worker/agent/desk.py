"""The desk: sealed requests in, stored ciphertext out. It never runs a request id twice and never sees a text.

A receipt is on disk before the enclave hears of it, so before the client can have the last frame. What the relayers
lose, they ask for again: the answer's ciphertext stays here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chain.api import ChainError
from protocol.errors import Code, Malformed, WireError
from protocol.frames import error_frame
from protocol.sealing import SealedRequest
from worker.agent.answering import MAX_ANSWER_BYTES, MAX_JOINED_BYTES, PIECE_BYTES, Running, pieces, receipt_row
from worker.agent.enclave_process import Enclave
from worker.agent.gate import Facts, refusal
from worker.agent.journal import Journal
from worker.agent.store import KnownRequest, Store, StoreError
from worker.agent.streams import Sink
from worker.agent.view import ChainView, NodeMissing
from worker.messages import Answer, Cancel, Issued, Post, Stored

log = logging.getLogger(__name__)

KEEP_ANSWERS_SECONDS = 24 * 3600
PIECE_SECONDS = 0.05
MAX_REPLAYS = 4
NOT_STORED = WireError.of(Code.INTERNAL, "the node's receipt store takes nothing now")


@dataclass(slots=True, eq=False)
class _Beginning:
    """A request between its arrival and its registration, while the chain and the store are asked about it."""

    allotment: bytes
    stale: bool
    """A release for its row was in the making since: what was read before says nothing any more."""


class Desk:
    def __init__(
        self,
        journal: Journal,
        view: ChainView,
        *,
        max_in_flight: int,
        min_close_timer: int,
        clock: Callable[[], float],
        max_share: int = 0,
    ) -> None:
        self._journal = journal
        self._view = view
        self._max_in_flight = max_in_flight
        self._min_close_timer = min_close_timer
        self._max_share = max_share
        self._clock = clock
        self._enclave: Enclave | None = None
        self._running: dict[bytes, Running] = {}
        self._releasing: set[bytes] = set()
        self._beginning: set[_Beginning] = set()
        self._replays = asyncio.Semaphore(MAX_REPLAYS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        """Set whenever an answer has ended."""
        self.paused = False
        """While the enclave is about to be replaced nothing is begun; what runs goes on."""
        self.on_receipt: Callable[[], None] = lambda: None
        """Called when money was earned."""

    # ---- state

    @property
    def in_flight(self) -> int:
        return len(self._running)

    async def idle(self) -> None:
        """Returns when nothing is being answered."""
        while self._running:
            self._ended.clear()
            await self._ended.wait()

    def runs_under(self, allotment: bytes) -> bool:
        return any(one.request.voucher.allotment == allotment for one in self._running.values())

    def hold(self, allotment: bytes) -> None:
        """From now on nothing is begun under this allotment: a release for it is being made."""
        self._releasing.add(allotment)
        for one in self._beginning:
            one.stale = one.stale or one.allotment == allotment

    def unhold(self, allotment: bytes) -> None:
        self._releasing.discard(allotment)

    def enclave_came(self, enclave: Enclave) -> None:
        self._enclave = enclave

    def enclave_gone(self) -> None:
        """What it worked on is lost; what it signed and we stored is not."""
        self._enclave = None
        lost, self._running = tuple(self._running.values()), {}
        self._ended.set()
        for one in lost:
            if one.last is not None:
                continue
            detail = "the enclave ended; what was not receipted is not billed"
            one.send(_error(WireError.of(Code.NODE_GONE, detail)), ends=True)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- requests

    async def answer(self, sealed: bytes, sink: Sink) -> Running | None:
        """Begin, join or repeat an answer. None when the sink was told everything there is."""
        try:
            return await self._begin(sealed, sink)
        except StoreError as error:
            log.error("%s", error)
            sink.send(_error(NOT_STORED), ends=True, receipt=False)
            return None
        except _Turned as turned:
            if len(turned.frames) <= PIECE_BYTES:
                sink.send(turned.frames, ends=True, receipt=False)
            else:
                self._spawn(self._replay(sink, turned.frames))
            return None

    async def _replay(self, sink: Sink, frames: bytes) -> None:
        async with self._replays:
            *rest, last = pieces(frames)
            for piece in rest:
                sink.send(piece, ends=False, receipt=False)
                await asyncio.sleep(PIECE_SECONDS)
            sink.send(last, ends=True, receipt=False)

    async def _begin(self, sealed: bytes, sink: Sink) -> Running:
        try:
            request = SealedRequest.from_bytes(sealed)
        except Malformed as error:
            raise _refused(WireError.of(Code.BAD_REQUEST, error.cause)) from error
        if (running := self._join(request, sink)) is not None:
            return running
        known = await self._journal.read(lambda store: store.request(request.request_id))
        if known is not None:
            raise _repeated(known)
        allotment = request.voucher.allotment
        beginning = _Beginning(allotment, allotment in self._releasing)
        self._beginning.add(beginning)
        try:
            voucher_key = await self._gate(request)
            await self._journal.check()  # what is answered while the disk is full could not be billed
        finally:
            self._beginning.remove(beginning)
        # Nothing waits between the checks from here to the registration, so they hold.
        if (running := self._join(request, sink)) is not None:
            return running
        enclave = self._enclave
        if enclave is None or enclave.key != request.voucher.key:
            raise _refused(WireError.of(Code.NODE_NOT_LIVE))
        if beginning.stale:
            raise _refused(WireError.of(Code.ALLOTMENT_CLOSING, "a release is being signed for it"))
        if self.paused:
            raise _refused(WireError.of(Code.NODE_BUSY, "its enclave is being replaced by one with a new key"))
        if len(self._running) >= self._max_in_flight:
            raise _refused(WireError.of(Code.NODE_BUSY))
        one = self._running[request.request_id] = Running(request, enclave, [sink], waiting={id(sink)})
        enclave.post(Post(request.request_id, voucher_key, sealed))
        return one

    def _join(self, request: SealedRequest, sink: Sink) -> Running | None:
        running = self._running.get(request.request_id)
        if running is not None:
            if running.lost:
                raise _refused(NOT_STORED)
            if len(running.frames) > MAX_JOINED_BYTES:
                raise _refused(WireError.of(Code.NODE_BUSY, "it is being answered; repeat it when that has ended"))
            running.join(sink)
        return running

    async def _gate(self, request: SealedRequest) -> bytes:
        """The escrow's voucher key. Turns away on fresh facts only: a client that has just opened or raised its row
        must not be sent off. Raises _Turned."""
        try:
            try:
                return await self._judge(request, fresh=False)
            except _Turned:
                return await self._judge(request, fresh=True)
        except (ChainError, NodeMissing) as trouble:
            log.warning("the chain cannot be read: %s", trouble)
            raise _refused(WireError.of(Code.CHAIN_UNCERTAIN)) from trouble

    async def _judge(self, request: SealedRequest, *, fresh: bool) -> bytes:
        node = await self._view.node(fresh=fresh)
        escrow = await self._view.escrow(request.escrow, fresh=fresh)
        if escrow is None:
            raise _refused(WireError.of(Code.ESCROW_UNKNOWN))
        row = escrow.rows.get(self._view.account)
        allotment, key = request.voucher.allotment, request.voucher.key

        def read(store: Store) -> tuple[bool, int]:
            released = row is not None and store.is_released(allotment, row.seqno)
            return released, store.owed_elsewhere(allotment, key)

        released, elsewhere = await self._journal.read(read)
        enclave = self._enclave
        if enclave is None:
            raise _refused(WireError.of(Code.NODE_NOT_LIVE))
        facts = Facts(
            node=self._view.account,
            node_state=node.state,
            key=enclave.key,
            escrow=escrow,
            now=int(self._clock()),
            owed_elsewhere_nano=elsewhere,
            released=released,
            min_close_timer=self._min_close_timer,
            max_share=self._max_share,
        )
        error = refusal(request, facts)
        if error is not None:
            raise _refused(error)
        return escrow.voucher_key

    # ---- what the enclave says

    def on_answer(self, message: Answer) -> None:
        one = self._running.get(message.request_id)
        if one is None:
            return  # it ran for a session that is over
        if one.receipt is None and len(one.frames) <= MAX_ANSWER_BYTES:
            one.frames += message.frames
            if len(one.frames) > MAX_ANSWER_BYTES:
                log.warning("an answer is over %d bytes; it is cut short", MAX_ANSWER_BYTES)
                one.enclave.post(Cancel(message.request_id))
        if message.ends and one.stored:
            one.last = message.frames
            self._spawn(self._keep_last(message.request_id, message.frames))
        elif message.ends:
            self._running.pop(message.request_id, None)
            self._ended.set()
        one.send(message.frames, ends=message.ends)

    def on_issued(self, message: Issued) -> None:
        one = self._running.get(message.request_id)
        if one is not None:
            one.receipt = message.frame
            self._spawn(self._keep_receipt(one, message))

    async def _keep_receipt(self, one: Running, message: Issued) -> None:
        try:
            row = receipt_row(message, one.enclave.key)
            frames, now = bytes(one.frames) + message.frame, int(self._clock())
            await self._journal.write(lambda store: store.add_receipt(row, frames, now))
        except Exception:
            # Without the receipt on disk the answer stays incomplete, but the client must not hang.
            # It stays here until the enclave has ended it, which would take a second post for a breach of the link.
            one.lost = True
            one.send(_error(NOT_STORED), ends=True)
            one.sinks.clear()
            one.enclave.post(Stored(message.request_id))  # lets it end; the last frame finds nobody
            raise
        one.stored = True
        one.send(message.frame, receipt=True)
        one.enclave.post(Stored(message.request_id))
        self.on_receipt()

    async def _keep_last(self, request_id: bytes, frames: bytes) -> None:
        try:
            await self._journal.write(lambda store: store.end_answer(request_id, frames))
        finally:
            self._running.pop(request_id, None)
            self._ended.set()

    async def forget_old_answers(self) -> None:
        """Drop ciphertexts that were sealed to keys long erased."""
        before = int(self._clock()) - KEEP_ANSWERS_SECONDS
        await self._journal.write(lambda store: store.drop_answers(before))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the store failed: %s", error)


class _Turned(Exception):
    """The sink gets these frames and nothing more."""

    def __init__(self, frames: bytes) -> None:
        super().__init__()
        self.frames = frames


def _refused(error: WireError) -> _Turned:
    return _Turned(_error(error))


def _repeated(known: KnownRequest) -> _Turned:
    if known.whole and known.frames is not None:
        return _Turned(known.frames)
    detail = f"it ended with receipt {known.seq} of allotment {known.allotment.hex()} under key {known.key.hex()}"
    return _refused(WireError.of(Code.ALREADY_OPENED, f"{detail}; its answer is not kept here"))


def _error(error: WireError) -> bytes:
    return error_frame(error).to_bytes()
