"""Messages from the client's wallet to registry and escrow: what they carry, and what became of them.

A message is written down before it is broadcast. A process that died in between finds it at its next start and waits
for its end before it signs another, so nothing is paid twice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from chain.api import Chain, ChainError, Transaction
from chain.follower import AccountFollower, AccountGone, head_of
from chain.history import Cursor, cursor_of
from chain.outgoing import Outgoing
from chain.sent import Dropped, Expired, Sent
from chain.wait import WaitTimeout, wait_for_transaction
from chain.wallet import Wallet
from client.errors import PaymentFailed
from client.store import Store
from wrappers.cells import from_boc, to_boc
from wrappers.errors import explain
from wrappers.fees import Fees
from wrappers.prices import PRICES
from wrappers.registry import Parameters

MARGIN_NANO = 5_000_000
"""On top of every need; it returns to the owner or becomes deposit."""
DELIVERY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Paid:
    """A message that arrived. `wallet`: the transaction that sent it, `arrival`: the one that took it, None where the
    account ended with it: the chain keeps no way to the last transaction of a deleted account."""

    wallet: Transaction
    arrival: Transaction | None


def fees(parameters: Parameters) -> Fees:
    return Fees(PRICES, parameters)


class Payments:
    """One wallet, one message at a time. Raises PaymentFailed, ChainError."""

    def __init__(self, chain: Chain, wallet: Wallet, store: Store) -> None:
        self._chain = chain
        self._wallet = wallet
        self._store = store
        self._one_at_a_time = asyncio.Lock()

    @property
    def account(self) -> bytes:
        return self._wallet.account

    async def pay(self, kind: str, message: Outgoing) -> Paid:
        """Send one message and wait until its destination has taken it. Raises PaymentFailed where it was refused."""
        async with self._one_at_a_time:
            await self._finish_open()
            start = head_of(await self._chain.account(message.destination))
            sent = await self._wallet.prepare(self._chain, [message])
            at = sent.start
            id_ = self._store.begin_payment(
                kind, to_boc(sent.message), at.lt if at else 0, at.hash if at else bytes(32)
            )
            with suppress(ChainError):  # it may have arrived all the same: `landed` broadcasts it again
                await self._chain.send(sent.message)
            transaction = await self._landed(kind, id_, sent)
            return Paid(transaction, await self._arrival(kind, message.destination, start, transaction))

    async def finish_open(self) -> None:
        """Wait for the end of messages that an earlier process sent."""
        async with self._one_at_a_time:
            await self._finish_open()

    async def _finish_open(self) -> None:
        for payment in self._store.open_payments():
            start = Cursor(payment.start_lt, payment.start_hash) if payment.start_lt else None
            try:
                await self._landed(payment.kind, payment.id, Sent.resume(from_boc(payment.message), start))
            except PaymentFailed:
                continue  # it is settled that it will never land; what it was for is decided anew

    async def _landed(self, kind: str, id_: int, sent: Sent) -> Transaction:
        try:
            transaction = await sent.landed(self._chain)
        except (Expired, Dropped) as error:
            self._store.end_payment(id_, landed=isinstance(error, Dropped))
            raise PaymentFailed(f"{kind}: {error}", "the money is in the wallet; do it again") from error
        self._store.end_payment(id_, landed=True)
        return transaction

    async def _arrival(self, kind: str, account: bytes, start: Cursor | None, sent: Transaction) -> Transaction | None:
        hashes = {message.hash for message in sent.out_msgs}
        follower = AccountFollower(self._chain, account, start)
        try:
            arrival = await wait_for_transaction(
                follower, lambda one: one.in_msg is not None and one.in_msg.hash in hashes, DELIVERY_SECONDS
            )
        except AccountGone:
            return None
        except WaitTimeout as error:
            raise PaymentFailed(
                f"{kind}: the message left the wallet, but its arrival was not seen: {error}",
                "look at the wallet's last transaction with an explorer before doing it again",
            ) from error
        if arrival.aborted:
            reason = "no contract is there" if arrival.exit_code is None else explain(arrival.exit_code)
            raise PaymentFailed(f"{kind} was refused: {reason}", "the money is on its way back to the wallet")
        return arrival

    async def refund(self, source: bytes, after: Transaction, timeout_seconds: float = DELIVERY_SECONDS) -> int:
        """nanoTON of the first message from `source` that the wallet took after its transaction `after`."""
        follower = AccountFollower(self._chain, self.account, cursor_of(after))
        try:
            found = await wait_for_transaction(
                follower, lambda one: one.in_msg is not None and one.in_msg.source == source, timeout_seconds
            )
        except WaitTimeout as error:
            raise PaymentFailed(
                f"the refund of {source.hex()} was not seen in the wallet: {error}", "look again with an explorer"
            ) from error
        return 0 if found.in_msg is None else found.in_msg.value_nano
