"""One sealed request on its way: posted until its answer is whole, however often the path breaks.

The same bytes are posted every time, so the enclave runs them once and bills them once; what a repeat brings again is
compared with what came before and not yielded twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from client.errors import AnswerLost, ClientError, NotConnected, RelayerRefused, RelayerUnreachable
from client.records import Request
from client.relayer_link import RelayerLink
from client.store import Store
from protocol.errors import Code, NotAuthentic, PeerFault, WireError
from protocol.sealing import SealedRequest
from protocol.stream import Completed, Data, Failed, Receipted, Refused, ResponseReader

MAX_ATTEMPTS = 6
RETRY_SECONDS = 60.0
MAX_ANSWER_BYTES = 64 << 20
_WAIT = frozenset(
    {
        Code.NODE_GONE,
        Code.NODE_BUSY,
        Code.NODE_NOT_LIVE,
        Code.TIMEOUT,
        Code.RATE_LIMITED,
        Code.CHAIN_UNCERTAIN,
        Code.INTERNAL,
    }
)
"""Said in clear, these are worth another post of the same bytes. Anything else will not change by waiting."""
_AWAY = frozenset({Code.NODE_UNKNOWN, Code.NODE_NOT_LIVE, Code.NODE_DRAINING})
"""What a relayer says that was restarted and that the agent has not found again yet. Of a request that may have reached
the node this is no last word: the agent keeps its answer, and a new request would be run and billed beside it."""


class _Hint(ClientError):
    """An error frame in clear: somebody on the path says that nothing more comes."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.cause, error.cure)
        self.code = error.code.value


class _Broken(ClientError):
    """What came is not what the enclave sent, or not all of it."""

    code = "answer-broken"


class Delivery:
    """`answer`: all plaintext so far. `attempts`: how often the request was posted."""

    def __init__(self, link: RelayerLink, store: Store, request: Request) -> None:
        self._link = link
        self._store = store
        self._request = request
        self._answer = bytearray()
        self._left = False
        """Whether an attempt may have brought the request to the node."""
        self.attempts = 0

    @property
    def answer(self) -> bytes:
        return bytes(self._answer)

    async def parts(self) -> AsyncGenerator[bytes | Completed | Refused, None]:
        """Plaintext pieces, then Completed or Refused. Raises RelayerRefused, RelayerUnreachable, AnswerLost; the
        promise stays counted then, since nothing proves that the request did not run."""
        until = time.monotonic() + RETRY_SECONDS
        while True:
            self.attempts += 1
            before = len(self._answer)
            try:
                async with aclosing(self._attempt()) as parts:
                    async for part in parts:
                        yield part
                return
            except (RelayerUnreachable, RelayerRefused, _Hint) as error:
                trouble: ClientError = error
                if not self._may_pass(error):
                    raise self._final(error) from error
                self._left = self._left or not _is_before_node(error)
            except PeerFault as error:
                trouble = _Broken(error.cause, error.cure)
            if len(self._answer) > before:
                until = time.monotonic() + RETRY_SECONDS
            wait = self._wait(trouble)
            if self.attempts >= MAX_ATTEMPTS or time.monotonic() + wait > until:
                raise self._final(trouble) from trouble
            await asyncio.sleep(wait)

    def _may_pass(self, error: ClientError) -> bool:
        if isinstance(error, RelayerUnreachable) or error.code in _WAIT:
            return True
        return self._left and error.code in _AWAY

    def _wait(self, trouble: ClientError) -> float:
        if isinstance(trouble, RelayerRefused) and trouble.retry_after is not None:
            return trouble.retry_after
        # Not all clients of a relayer that comes back at the same moment.
        return float(min(8.0, 0.25 * 2**self.attempts) * random.uniform(0.5, 1.0))

    def _final(self, error: ClientError) -> ClientError:
        lost = isinstance(error, _Hint | _Broken) or (self._left and error.code in _AWAY)
        if not self._answer and not lost:
            return error
        part = "; what came of the answer is incomplete" if self._answer else ""
        return AnswerLost(
            f"{error.cause} (code {error.code}){part}",
            "ask again; this request stays counted with its maximum until its receipt comes or it can run no more",
            self._request.request_id,
        )

    async def _attempt(self) -> AsyncGenerator[bytes | Completed | Refused, None]:
        request = self._request
        sealed = SealedRequest.from_bytes(request.sealed)
        reader = ResponseReader(response_secret=request.secret, enc=sealed.enc, request_id=request.request_id)
        at = 0
        async with self._link.post(request.sealed) as parts:
            self._left = True
            async for part in parts:
                for event in reader.feed(part):
                    match event:
                        case Data():
                            fresh = self._fresh(at, event.plaintext)
                            at += len(event.plaintext)
                            if fresh:
                                yield fresh
                        case Receipted():
                            self._keep(event)
                        case Completed() | Refused():
                            if at != len(self._answer):
                                raise self._two_answers()
                            yield event
                            return
                        case Failed():
                            raise _Hint(event.error)
                        case _:
                            pass
        reader.close()

    def _fresh(self, at: int, plaintext: bytes) -> bytes:
        known = bytes(self._answer[at : at + len(plaintext)])
        if not plaintext.startswith(known):
            raise self._two_answers()
        fresh = plaintext[len(known) :]
        if len(self._answer) + len(fresh) > MAX_ANSWER_BYTES:
            raise AnswerLost(
                f"the answer is over {MAX_ANSWER_BYTES} bytes", "ask for fewer tokens", self._request.request_id
            )
        self._answer += fresh
        return fresh

    def _keep(self, event: Receipted) -> None:
        try:
            event.signed.check(self._request.key)
        except NotAuthentic:
            return  # the sealed part decides; this copy would prove nothing
        self._store.note_outer(self._request.request_id, event.signed.to_bytes())

    def _two_answers(self) -> AnswerLost:
        return AnswerLost(
            "the node gave two different answers to one request", "leave the node", self._request.request_id
        )


def _is_before_node(error: ClientError) -> bool:
    """Whether the attempt that ended so cannot have reached the node; a relayer's word is taken for it."""
    if isinstance(error, RelayerRefused):
        return error.code != Code.NODE_GONE
    return isinstance(error, NotConnected)
