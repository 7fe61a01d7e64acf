"""Follows one account's transactions, each exactly once and in order, from wherever the last process stopped."""

from __future__ import annotations

import asyncio
import time

from chain.api import AccountState, Chain, ChainError, Refused, Transaction
from chain.history import Cursor, check_links, cursor_of, previous

__all__ = ["AccountFollower", "AccountGone", "AccountRecreated", "Cursor", "HistoryMismatch"]

PAGE = 100
BATCH = 2_000
"""Transactions held in memory at once; a longer gap is delivered by several polls."""


class HistoryMismatch(ChainError):
    """The cursor is not in the account's history: the chain was reset, or the cursor belongs to another network."""


class AccountGone(HistoryMismatch):
    """The account existed at the cursor and is deleted now. TON drops the link to a deleted account's last
    transactions, so those after the cursor cannot be walked to; that it is gone is itself the fact."""


class AccountRecreated(HistoryMismatch):
    """The account was deleted after the cursor and exists again with a new history. `restart()` follows the new one."""


class AccountFollower:
    """Give it a `Quorum`: the head decides what is believed, the hash chain proves the rest.

    `cursor`: the last transaction already handled; None means the whole history. `poll()` moves `cursor` in memory
    only: persist it together with the facts, and `rewind` to the persisted one when that write failed.
    """

    def __init__(
        self,
        chain: Chain,
        account: bytes,
        cursor: Cursor | None = None,
        *,
        page: int = PAGE,
        batch: int = BATCH,
        lag_seconds: float = 60.0,
    ) -> None:
        if page < 1 or batch < page:
            raise ValueError(f"page {page} must be at least 1 and at most batch {batch}")
        self._chain = chain
        self.account = account
        self._cursor = cursor
        self._page = page
        self._batch = batch
        self._lag_seconds = lag_seconds
        self._behind_since: float | None = None
        self._targets: list[Cursor] = []
        self._state: AccountState | None = None
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def from_now(cls, chain: Chain, account: bytes) -> AccountFollower:
        """A follower of what happens after the account's present state."""
        return cls(chain, account, head_of(await chain.account(account)))

    @property
    def cursor(self) -> Cursor | None:
        """The last transaction that `poll` returned."""
        return self._cursor

    @property
    def state(self) -> AccountState | None:
        """The account's state when its head was last read; None before the first poll."""
        return self._state

    @property
    def caught_up(self) -> bool:
        """True when everything up to `state` has been returned."""
        return self._state is not None and not self._targets

    def rewind(self, cursor: Cursor | None) -> None:
        """Continue from an earlier position, the one that was persisted."""
        self._cursor = cursor
        self._targets.clear()

    def restart(self) -> None:
        """Follow the account's present life from its first transaction."""
        self.rewind(None)

    async def poll(self) -> tuple[Transaction, ...]:
        """Everything after the cursor, oldest first; at most `batch` at a time, so poll again until `caught_up`.

        Raises Unreachable or Disagreement (try again: nothing is lost, the walk resumes), HistoryMismatch and its kinds
        (decide: the cursor does not fit the chain).
        """
        async with self._one_at_a_time:
            if not self._targets:
                head = await self._new_head()
                if head is None:
                    return ()
                self._targets.append(head)
            try:
                newest_first = await self._descend()
            except HistoryMismatch:
                self._targets.clear()
                raise
            self._targets.pop()
            self._cursor = cursor_of(newest_first[0])
            return tuple(reversed(newest_first))

    async def _new_head(self) -> Cursor | None:
        state = await self._chain.account(self.account)
        self._state = state
        head = head_of(state)
        cursor = self._cursor
        if head is None:
            if cursor is not None:
                raise AccountGone(
                    f"account {self.account.hex()} was followed up to lt {cursor.lt} and is {state.status} now: "
                    "it was deleted; treat it as closed"
                )
            return None
        if cursor is None:
            return head
        if head.lt > cursor.lt:
            self._behind_since = None
            return head
        if head == cursor:
            self._behind_since = None
            return None
        if head.lt == cursor.lt:
            raise self._mismatch(f"lt {cursor.lt} has another hash there")
        self._note_behind(head, cursor)
        return None

    def _note_behind(self, head: Cursor, cursor: Cursor) -> None:
        """An endpoint may lag behind what it told before, for a while; a chain that stays behind was reset."""
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        if now - self._behind_since >= self._lag_seconds:
            raise self._mismatch(f"its head has been at lt {head.lt}, before the cursor's {cursor.lt}")

    async def _descend(self) -> list[Transaction]:
        """From the oldest pending target back to the cursor; newer targets stay pending where there are too many."""
        position = self._targets[-1]
        kept: list[Transaction] = []
        while True:
            page = await self._chain.transactions(self.account, lt=position.lt, hash=position.hash, limit=self._page)
            check_links(page, position, account=self.account, endpoint=self._chain.name)
            if kept and len(kept) + len(page) > self._batch:
                kept = []
                self._targets.append(position)
            for transaction in page:
                kept.append(transaction)
                before = previous(transaction)
                if before == self._cursor:
                    return kept
                if before is None or (self._cursor is not None and before.lt <= self._cursor.lt):
                    await self._not_in_history(before)
            assert before is not None
            position = before

    async def _not_in_history(self, before: Cursor | None) -> None:
        cursor = self._cursor
        assert cursor is not None
        if before is None and await self._knows(cursor):
            raise AccountRecreated(
                f"account {self.account.hex()} was deleted after lt {cursor.lt} and exists again with a new history; "
                "treat the old one as closed and restart the follower"
            )
        raise self._mismatch("its history passes the cursor by")

    async def _knows(self, cursor: Cursor) -> bool:
        try:
            await self._chain.transactions(self.account, lt=cursor.lt, hash=cursor.hash, limit=1)
        except Refused:
            return False
        return True

    def _mismatch(self, why: str) -> HistoryMismatch:
        at = "the beginning" if self._cursor is None else f"lt {self._cursor.lt} hash {self._cursor.hash.hex()}"
        return HistoryMismatch(
            f"account {self.account.hex()} was followed up to {at}, and {self._chain.name} has another history "
            f"({why}): the chain was reset or this is another network; check the profile, else start with a new store"
        )


def head_of(state: AccountState) -> Cursor | None:
    """The position of a state's last transaction; None where there is none."""
    return None if state.last_lt == 0 else Cursor(state.last_lt, state.last_hash)
