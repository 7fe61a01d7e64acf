"""What requests leave behind that broke off, here or at the caller's: receipts are fetched, nothing is run again."""

from __future__ import annotations

import asyncio
import logging
import time

from client.errors import ClientError
from client.home import Home
from client.records import Request
from client.relayer_link import RelayerLink
from client.session import Session
from client.settings import Recovered
from client.store import Store
from protocol.account import MAX_REQUEST_SECONDS
from protocol.receipts import SignedReceipt
from wrappers.signed import verify

COLLECT_DELAYS = (1.0, 5.0, 20.0)
log = logging.getLogger("cocoon.client")


class Leftovers:
    def __init__(self, home: Home, store: Store, link: RelayerLink, session: Session, network: bytes) -> None:
        self._home = home
        self._store = store
        self._link = link
        self._session = session
        self._network = network
        self._tasks: set[asyncio.Task[None]] = set()

    async def end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def recover(self) -> list[Recovered]:
        """Post again what an earlier process left in flight and take the receipts. Nothing runs or is billed twice."""
        self._store.forget_expired(int(time.time()) - MAX_REQUEST_SECONDS)
        found = []
        for request in self._store.requests():
            if not request.sealed or self._session.running(request.request_id):
                continue
            try:
                found.append(Recovered(request.request_id, await self._session.collect(request), ""))
            except ClientError as error:
                found.append(Recovered(request.request_id, None, str(error)))
        return found

    async def unaccepted(self) -> list[SignedReceipt]:
        """Receipts that the relayer has from this client's nodes and this client has not: billed, and the sealed parts
        that prove them never came. Their signatures are checked; the amounts are what the nodes will claim."""
        known = self._store.escrow()
        if known is None:
            return []
        key, network = self._home.known_voucher_key(known.number), self._network
        found: list[SignedReceipt] = []
        for of, account in self._store.accounts():
            if of.escrow != known.account or not account.promises:
                continue
            after, now = account.seq, int(time.time())
            listed = await self._link.receipts(
                key, network=network, escrow=of.escrow, now=now, allotment=of.allotment, key=of.key, after=after
            )
            held = {one.receipt.signed.receipt.seq for one in account.promises if one.receipt is not None}
            for signed in listed:
                if verify(signed.receipt, signed.signature, of.key) and signed.receipt.seq not in held:
                    found.append(signed)
        return found

    def collect_later(self, request: Request) -> None:
        """The caller went away: what was done until then is billed, so its receipt is fetched."""
        task = asyncio.get_running_loop().create_task(self._collect(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _collect(self, request: Request) -> None:
        for delay in COLLECT_DELAYS:
            await asyncio.sleep(delay)
            if self._store.request(request.request_id) is None or self._session.running(request.request_id):
                return
            try:
                await self._session.collect(request)
                return
            except ClientError as error:
                log.info("receipt of cancelled request %s: %s", request.request_id.hex(), error.cause)
