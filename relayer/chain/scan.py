"""Follows the accounts of nodes and escrows that money is waiting on, and turns what it finds into facts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from chain.api import AccountState, Chain, ChainError, Status
from chain.follower import AccountFollower, AccountGone, AccountRecreated, Cursor, HistoryMismatch
from relayer.chain.mirror import Mirror, Seen
from relayer.core.facts import Fact, NodeSeen, RowGone, RowSeen
from relayer.core.settlement import judge
from relayer.core.tally import Tally
from relayer.log import log
from relayer.store.store import Entry, Mark
from relayer.store.writer import Writer
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.rows import KeyRow

AT_ONCE = 8
ESCROWS_PER_ROUND = 200
"""Escrows are read in turn, so that many of them slow the round down and not the endpoints."""


_Round = Callable[[bytes], Awaitable[None]]


class Scanner:
    """`chain` must be a quorum. Facts and cursor land in one transaction: a crash repeats a read and loses nothing."""

    def __init__(self, chain: Chain, mirror: Mirror, writer: Writer) -> None:
        self._chain = chain
        self._mirror = mirror
        self._writer = writer
        self._followers: dict[bytes, AccountFollower] = {}
        self._turn = 0
        self.now = 0
        """Time of the newest block seen, by two endpoints."""
        self.seqno = 0
        self.failure: ChainError | None = None
        """Why the last round could not read; None when it could."""

    async def run_once(self, connected: Iterable[bytes]) -> None:
        """One round over the `connected` nodes and every node and escrow that something is open with."""
        try:
            head = await self._chain.head()
        except ChainError as error:
            self.failure = error
            return
        self.now, self.seqno, self.failure = head.now, head.block.seqno, None
        settlements = await self._writer.read(lambda store: store.settlements())
        nodes = set(connected) | {one.node for one in settlements if one.phase != "idle"}
        escrows = self._choose(await self._writer.read(lambda store: store.escrows_with_receipts()))
        gate = asyncio.Semaphore(AT_ONCE)
        tasks = [self._guarded(gate, account, self._node_round) for account in nodes]
        tasks += [self._guarded(gate, account, self._escrow_round) for account in escrows]
        await asyncio.gather(*tasks)
        wanted = nodes | set(escrows)
        if len(self._followers) > 2 * len(wanted) + 1000:
            self._followers = {account: one for account, one in self._followers.items() if account in wanted}

    def _choose(self, escrows: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if len(escrows) <= ESCROWS_PER_ROUND:
            return escrows
        start = self._turn % len(escrows)
        self._turn += ESCROWS_PER_ROUND
        return (escrows[start:] + escrows[:start])[:ESCROWS_PER_ROUND]

    async def _guarded(self, gate: asyncio.Semaphore, account: bytes, work: _Round) -> None:
        async with gate:
            try:
                await work(account)
            except HistoryMismatch as error:
                log("history mismatch", account=account, reason=str(error))
                self.failure = error
            except ChainError as error:
                self.failure = error

    async def _poll(self, account: bytes) -> tuple[AccountState, bool]:
        """The account's agreed state, and whether it changed since the stored cursor (or was never read)."""
        follower = self._followers.get(account)
        if follower is None:
            mark = await self._writer.read(lambda store: store.cursor(account))
            if mark is None:
                # What happened before is in the state already; only what changes from here on is news.
                state = await self._chain.account(account)
                self._followers[account] = AccountFollower(self._chain, account, _cursor(state))
                return state, True
            follower = AccountFollower(self._chain, account, Cursor(mark.lt, mark.hash))
            self._followers[account] = follower
        try:
            changed = bool(await follower.poll())
            while not follower.caught_up:
                changed = bool(await follower.poll()) or changed
        except AccountGone:
            del self._followers[account]
            return await self._chain.account(account), True
        except AccountRecreated:
            follower.restart()
            await follower.poll()
            changed = True
        assert follower.state is not None
        return follower.state, changed

    async def _node_round(self, account: bytes) -> None:
        raw, changed = await self._poll(account)
        seen = self._mirror.learn_node(raw)
        facts: list[Fact] = []
        if seen.state is not None and changed:
            facts.append(_node_fact(seen, seen.state, self.now))
        settlement = await self._writer.read(lambda store: store.settlement(account))
        if seen.state is not None or raw.status in (Status.ABSENT, Status.UNINIT):
            # Judged in every round, change or not: expiry is told by the chain's clock alone. A claim to a deleted
            # node cannot land; it expires.
            seqno = settlement.seqno if seen.state is None else seen.state.seqno
            verdict = judge(settlement, seqno=seqno, now=self.now)
            if verdict is not None:
                facts.append(verdict)
                log("claim over", node=account, seqno=verdict.seqno, outcome=type(verdict).__name__)
        await self._record(facts, raw, changed)

    async def _escrow_round(self, account: bytes) -> None:
        raw, changed = await self._poll(account)
        seen = self._mirror.learn_escrow(raw)
        tallies = await self._writer.read(lambda store: store.tallies(account))
        unread = any(tally.lt < seen.lt and not tally.gone for tally in tallies)
        if changed or unread:
            facts = [escrow_fact(tally, seen, raw.status, self.now) for tally in tallies]
            await self._record([fact for fact in facts if fact is not None], raw, True)

    async def _record(self, facts: list[Fact], raw: AccountState, changed: bool) -> None:
        if not facts and not changed:
            return
        cursor = _cursor(raw)
        mark = None if cursor is None else Mark(raw.account, cursor.lt, cursor.hash)
        entries = tuple(Entry(fact) for fact in facts) + ((Entry(None, mark),) if mark is not None else ())
        if not entries:
            return
        try:
            await self._writer.record_many(entries)
        except Exception:
            # Nothing landed: read the same again from the stored cursor.
            self._followers.pop(raw.account, None)
            raise


def _cursor(raw: AccountState) -> Cursor | None:
    return None if raw.last_lt == 0 else Cursor(raw.last_lt, raw.last_hash)


def _node_fact(seen: Seen[NodeState], state: NodeState, now: int) -> NodeSeen:
    return NodeSeen(seen.account, seen.lt, state.epoch, state.seqno, state.signing_key, state.attested_until, now)


def escrow_fact(tally: Tally, seen: Seen[EscrowState], status: Status, now: int) -> RowSeen | RowGone | None:
    """What the escrow, as read, says about one tally; None when it says nothing. Pure.

    A frozen account, or one whose data this version cannot read, may live on: only a deleted one has lost its rows.
    """
    if seen.state is None and status not in (Status.ABSENT, Status.UNINIT):
        return None
    row = None if seen.state is None else seen.state.rows.get(tally.node)
    if seen.state is None or row is None or row.allotment != tally.allotment:
        return RowGone(tally.escrow, tally.node, tally.allotment, tally.key, seen.lt, now)
    closing_at = seen.state.closes_at(tally.node)
    return RowSeen(
        escrow=tally.escrow,
        node=tally.node,
        allotment=tally.allotment,
        key=tally.key,
        lt=seen.lt,
        key_paid_nano=row.keys.get(tally.key, KeyRow()).paid_nano,
        row_paid_nano=row.paid_nano,
        allotted_nano=row.allotted_nano,
        closing_at=closing_at,
        at=now,
    )
