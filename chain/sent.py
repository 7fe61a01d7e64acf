"""A signed wallet message on its way: it lands once or it expires, and nothing in between is guessed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import AccountState, Chain, ChainError, Disagreement, Status, Transaction, Unreachable
from chain.decode import DecodeError, decode_message
from chain.follower import AccountFollower
from chain.history import Cursor
from chain.reader import Reader

COMMIT_MARGIN_SECONDS = 30
"""A shard block made before `valid_until` may reach the masterchain this much later; only then is a message dead."""


class WalletError(ChainError):
    """The wallet cannot do what was asked. Names cause and cure."""


class Expired(WalletError):
    """The message can never land any more: its time has passed, or another message took its number. Send anew."""


class Dropped(WalletError):
    """The message landed, but the chain left out some of what it carries; `transaction` shows what went out."""

    def __init__(self, text: str, transaction: Transaction) -> None:
        super().__init__(text)
        self.transaction = transaction


class OutcomeUnknown(WalletError):
    """The chain could not be read for long enough. Keep the `Sent` and ask again: sending anew could pay twice."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A signed external message of a v4r2 wallet. `message` and `start` are all that a restart needs (`Sent.resume`).

    `start`: the wallet's history before it; the message lands after that or never. `count`: messages that it carries.
    """

    account: bytes
    seqno: int
    valid_until: int
    hash: bytes
    message: Cell
    start: Cursor | None
    count: int

    @classmethod
    def resume(cls, message: Cell, start: Cursor | None) -> Sent:
        """From what was persisted. Raises DecodeError where `message` is no external message of a v4r2 wallet."""
        envelope = decode_message(message)
        if not envelope.external or envelope.destination is None:
            raise DecodeError("not an external message to a wallet of workchain 0")
        r = Reader(envelope.body)
        r.octets(64)  # signature
        r.uint(32)  # wallet id
        valid_until, seqno = r.uint(32), r.uint(32)
        return cls(envelope.destination, seqno, valid_until, bytes(message.hash), message, start, r.refs_left)

    async def landed(
        self,
        chain: Chain,
        *,
        timeout_seconds: float = 300.0,
        interval_seconds: float = 0.5,
        rebroadcast_seconds: float = 5.0,
    ) -> Transaction:
        """The wallet's transaction that took this message; broadcasts it again while that can help.

        Raises Expired, Dropped, OutcomeUnknown, or HistoryMismatch. Safe to repeat and to call from several places.
        """
        follower = AccountFollower(chain, self.account, self.start)
        body_hash = decode_message(self.message).body.hash
        deadline = time.monotonic() + timeout_seconds
        broadcast_at = time.monotonic() + rebroadcast_seconds
        trouble = "it has neither landed nor expired"
        while True:
            try:
                now = (await chain.head()).now  # before the history: what is older than this is in the history then
                found = await self._find(follower, body_hash)
                if found is not None:
                    return self._complete(found)
                self._check_alive(follower.state, now)
            except (Unreachable, Disagreement) as error:
                trouble = str(error)
            if time.monotonic() >= broadcast_at:
                broadcast_at = time.monotonic() + rebroadcast_seconds
                try:
                    await chain.send(self.message)
                except ChainError as error:  # it may have landed meanwhile: the next look tells
                    trouble = str(error)
            if time.monotonic() + interval_seconds >= deadline:
                raise OutcomeUnknown(
                    f"message {self.hash.hex()} of wallet {self.account.hex()}: no certainty within "
                    f"{timeout_seconds:g} s ({trouble}); ask again later, do not send anew "
                    f"before it expires at {self.valid_until}"
                )
            await asyncio.sleep(interval_seconds)

    async def _find(self, follower: AccountFollower, body_hash: bytes) -> Transaction | None:
        """By the hash of the signed body: anybody may wrap it into another envelope."""
        while True:
            for transaction in await follower.poll():
                message = transaction.in_msg
                if message is not None and message.external and message.body.hash == body_hash:
                    return transaction
            if follower.caught_up:
                return None

    def _complete(self, transaction: Transaction) -> Transaction:
        if len(transaction.out_msgs) < self.count:
            raise Dropped(
                f"message {self.hash.hex()} of wallet {self.account.hex()} landed, but only "
                f"{len(transaction.out_msgs)} of its {self.count} messages went out "
                f"(action code {transaction.action_code}): the balance is too low; "
                "fund the wallet and send the missing ones again",
                transaction,
            )
        return transaction

    def _check_alive(self, state: AccountState | None, now: int) -> None:
        if state is not None and state.status is Status.ACTIVE and seqno_of(state) > self.seqno:
            raise Expired(
                f"another message took number {self.seqno} of wallet {self.account.hex()}, so message "
                f"{self.hash.hex()} can never land: send anew, and let only one process use this wallet"
            )
        if now > self.valid_until + COMMIT_MARGIN_SECONDS:
            raise Expired(f"message {self.hash.hex()} of wallet {self.account.hex()} expired unused: send anew")


def seqno_of(state: AccountState) -> int:
    """The next number that a v4r2 wallet takes; 0 before its first message. Raises WalletError for a frozen one."""
    if state.status is Status.FROZEN:
        raise WalletError(
            f"wallet {state.account.hex()} is frozen for unpaid rent; unfreeze it with its last state and a top-up"
        )
    return 0 if state.data is None else Reader(state.data).uint(32)
