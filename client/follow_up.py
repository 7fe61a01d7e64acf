"""What somebody must send and nobody else has a reason to: the owner began it, and only a time had to pass.

A job that nobody delivered, rows whose close timers have run, a voucher key whose waiting time is over. Nothing here is
a decision: each was the owner's, and costs him only gas. `return-rent` is not among them: closing returns it anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from chain.api import ChainError
from client.errors import ClientError, NoEscrow

if TYPE_CHECKING:
    from client.sdk import Client

LOOK_SECONDS = 60.0
AGAIN_SECONDS = 3600.0
"""What was refused is not tried again before: each try costs gas."""
_SAYS = {
    "finish": "rows whose close timers had run are free",
    "rotate-voucher-key": "the voucher key that was proposed is in place",
}
log = logging.getLogger("cocoon.client")


@dataclass(frozen=True, slots=True)
class Round:
    """In words, a line each."""

    done: tuple[str, ...]
    failed: tuple[str, ...]


class FollowUp:
    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                found = await self.round()
                for line in found.done:
                    log.info("%s", line)
                for line in found.failed:
                    log.warning("%s", line)
            except (ClientError, ChainError) as error:
                log.info("what is due is looked for again in a minute: %s", error)
            except Exception:
                log.exception("what is due waits; report this")  # requests go on without it
            await asyncio.sleep(LOOK_SECONDS)

    async def round(self) -> Round:
        """Look once and do what is due. Raises Uncertain where the chain cannot be asked."""
        done: list[str] = []
        failed: list[str] = []
        for job in await self._client.jobs.refundable():
            says = f"job {job.hex()} is refunded to the escrow"
            await self._try(f"job {job.hex()}", says, partial(self._client.jobs.refund, job), done, failed)
        try:
            due = await self._client.due()
        except NoEscrow:
            due = ()
        for what in due:
            await self._try(what, _SAYS[what], partial(self._step, what), done, failed)
        return Round(tuple(done), tuple(failed))

    async def _step(self, what: str) -> object:
        return await (self._client.finish() if what == "finish" else self._client.upkeep(what))

    async def _try(
        self, what: str, says: str, step: Callable[[], Awaitable[object]], done: list[str], failed: list[str]
    ) -> None:
        if self._clock() < self._not_before.get(what, 0.0):
            return
        try:
            await step()
            done.append(says)
        except (ClientError, ChainError) as error:
            self._not_before[what] = self._clock() + AGAIN_SECONDS
            failed.append(f"{what}: {error}")
