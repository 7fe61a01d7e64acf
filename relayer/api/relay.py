"""POST /v1/requests: a sealed request in, its frames out. Data is copied, never parsed."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import ClientConnectionError, web

from protocol.errors import Code, WireError
from protocol.frames import Phase, error_frame
from relayer.api.admission import Admission, Admitted
from relayer.api.receipts import ReceiptFault, read_receipt
from relayer.api.streams import Chunk, Fault, Stream
from relayer.config import Limits
from relayer.core.facts import RequestAdmitted, RequestAnswered, RequestBroken
from relayer.errors import Refusal
from relayer.log import log
from relayer.store.store import StoreError
from relayer.store.writer import Writer

FRAMES_TYPE = "application/vnd.cocoon.frames"


class _ClientGone(Exception):
    """The client closed the connection or does not read."""


class Relay:
    """Carries answers. One instance for all requests."""

    def __init__(self, admission: Admission, writer: Writer, limits: Limits) -> None:
        self._admission = admission
        self._writer = writer
        self._limits = limits
        self._drains: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        admitted = await self._admission.admit(await self._body(request))
        sealed = admitted.sealed
        try:
            if self._writer.failure is not None:
                # The last write failed: a request whose receipt could not be stored is not begun at all.
                await self._record(admitted)
            stream = await admitted.link.open(admitted.body)
        except BaseException:
            self._admission.release(sealed.escrow)
            raise
        # Written while the worker opens the request, on disk before the client sees a frame: what was under way
        # when the process died is known after the restart.
        admission = asyncio.ensure_future(self._record(admitted))
        response = web.StreamResponse(headers={"Content-Type": FRAMES_TYPE, "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        code = "client-gone"
        try:
            await admission
            await response.prepare(request)
            stream.on_overflow = lambda: _abort(request)
            code = await self._carry(admitted, stream, response)
        except (_ClientGone, ClientConnectionError, ConnectionError):
            _abort(request)
        finally:
            self._over(admitted, code)
            self._admission.release(sealed.escrow)
            self._leave(admitted, stream)
        return response

    async def _record(self, admitted: Admitted) -> None:
        try:
            await self._writer.record(_admission_of(admitted))
        except StoreError as error:
            log("request not stored", level=logging.ERROR, node=admitted.sealed.node, error=error)
            raise Refusal(Code.INTERNAL, "the relayer can store nothing now", retry_after=10) from error

    async def _body(self, request: web.Request) -> bytes:
        most = self._limits.max_request_bytes
        if request.content_length is not None and request.content_length > most:
            raise Refusal(Code.TOO_LARGE, f"{request.content_length} bytes, at most {most}")
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refusal(Code.TOO_LARGE, f"at most {most} bytes") from error
        except TimeoutError as error:
            raise Refusal(Code.BAD_REQUEST, "the body did not arrive in time", cure="send it without pauses") from error

    async def _carry(self, admitted: Admitted, stream: Stream, response: web.StreamResponse) -> str:
        """Copies until the end; the code with which it broke, empty when it did not."""
        deadline = time.monotonic() + self._limits.request_seconds
        silence = self._limits.first_frame_seconds
        while True:
            broken: WireError | None = None
            try:
                part = await stream.next(max(0.0, min(silence, deadline - time.monotonic())))
            except TimeoutError:
                broken = WireError.of(Code.TIMEOUT, "the worker was silent for too long")
            else:
                if part is None:
                    return "" if stream.phase is Phase.ENDED else "worker-error"
                if isinstance(part, Fault):
                    broken = part.error
                else:
                    broken = await self._store_receipts(admitted, part)
            if broken is None:
                assert isinstance(part, Chunk)
                if part.data:
                    await self._write(response, part.data)
                silence = self._limits.idle_seconds
                continue
            await self._write(response, error_frame(broken).to_bytes())
            return broken.code

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                await response.write(data)
        except TimeoutError as error:
            raise _ClientGone from error

    async def _store_receipts(self, admitted: Admitted, chunk: Chunk) -> WireError | None:
        """Receipts are on disk before the client sees them, so that whoever has one finds it here again."""
        sealed = admitted.sealed
        for payload in chunk.receipts:
            try:
                fact = read_receipt(
                    payload,
                    request_id=sealed.request_id,
                    escrow=sealed.escrow,
                    node=sealed.node,
                    node_id=admitted.node_id,
                    allotment=sealed.voucher.allotment,
                    key=sealed.voucher.key,
                    now=int(time.time()),
                )
            except ReceiptFault as error:
                log("bad receipt", node=sealed.node, reason=str(error))
                return WireError.of(Code.NODE_GONE, f"the worker sent a bad receipt ({error})")
            try:
                await self._writer.record(fact, payload=payload)
            except StoreError as error:
                log("receipt not stored", level=logging.ERROR, node=sealed.node, error=error)
                return WireError.of(Code.INTERNAL, "the relayer cannot store the receipt")
        return None

    def _over(self, admitted: Admitted, code: str) -> None:
        now, request_id, attempt = int(time.time()), admitted.sealed.request_id, admitted.attempt
        seconds = round((time.time_ns() - attempt) / 1e9, 3)
        log("request over", request=request_id, node=admitted.sealed.node, code=code or "answered", seconds=seconds)
        answered = RequestAnswered(request_id, attempt, now)
        self._writer.note(RequestBroken(request_id, code, attempt, now) if code else answered)

    def _leave(self, admitted: Admitted, stream: Stream) -> None:
        if stream.may_bring_receipts:
            stream.keep_receipts_only()
            task = asyncio.ensure_future(self._drain(admitted, stream))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        else:
            admitted.link.forget(stream)

    async def _drain(self, admitted: Admitted, stream: Stream) -> None:
        """The client is gone: the receipt is still wanted, for the settlement and for the client's next visit."""
        try:
            if not stream.finished:
                await admitted.link.cancel(stream)
            async with asyncio.timeout(self._limits.request_seconds):
                while True:
                    part = await stream.next(self._limits.request_seconds)
                    if not isinstance(part, Chunk) or await self._store_receipts(admitted, part) is not None:
                        return
        except (Refusal, TimeoutError):
            return  # the link is gone or the worker never ended it; the agent keeps the receipt
        finally:
            admitted.link.forget(stream)

    async def close(self) -> None:
        for task in tuple(self._drains):
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)


def _admission_of(admitted: Admitted) -> RequestAdmitted:
    sealed, voucher = admitted.sealed, admitted.sealed.voucher
    return RequestAdmitted(
        request_id=sealed.request_id,
        escrow=sealed.escrow,
        node=sealed.node,
        allotment=voucher.allotment,
        key=voucher.key,
        cap_nano=voucher.cap_nano,
        acked_nano=voucher.acked_nano,
        attempt=admitted.attempt,
        at=int(time.time()),
    )


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
