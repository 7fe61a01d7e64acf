"""The way of one answer out of the enclave: frames to the agent, and the receipt's acknowledgement back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.enclave.books import Issue
from worker.fields import Message
from worker.messages import Answer, Issued

Send = Callable[[Message], Awaitable[None]]


class Outbox:
    """Everything of one request that leaves the enclave goes through here, in order."""

    def __init__(self, request_id: bytes, send: Send, ending: Callable[[], None]) -> None:
        self._request_id = request_id
        self._send = send
        self._ending = ending
        self._stored = asyncio.Event()

    async def frames(self, frames: bytes) -> None:
        await self._send(Answer(self._request_id, False, frames))

    async def end(self, frames: bytes) -> None:
        """The frames after which nothing more comes."""
        # First: the agent may post the same request again as soon as it has them, however long the sending takes here.
        self._ending()
        await self._send(Answer(self._request_id, True, frames))

    async def receipt(self, issue: Issue, frame: bytes) -> None:
        """Hand over the receipt; returns when the agent says that it is on disk.

        After the last frame the client may have all that it wants, so the operator's proof comes first. An agent that
        lies here cheats its own operator.
        """
        voucher, signature = issue.account.voucher, issue.account.voucher_signature
        if voucher is None:
            raise RuntimeError("an account issued a receipt without a voucher")
        await self._send(
            Issued(
                self._request_id,
                issue.escrow,
                issue.epoch,
                voucher.cap_nano,
                voucher.acked_nano,
                voucher.terms,
                signature,
                frame,
            )
        )
        await self._stored.wait()

    def stored(self) -> None:
        self._stored.set()
